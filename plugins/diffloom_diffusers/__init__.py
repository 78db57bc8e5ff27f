"""diffusers' models and schedulers as parts of diffloom.

The components need diffusers (`pip install 'diffloom[diffusers]'`) and read local folders only; nothing is fetched.
"""
