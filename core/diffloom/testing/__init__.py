"""The test kit: what a plugin's author imports to prove a component.

`oracles` are models whose every answer is known, `strategies` draw schedules, times, images and conditions,
and the contracts are the checks that every component of an interface must pass.
"""
