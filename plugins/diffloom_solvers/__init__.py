"""Fast samplers (DPM-Solver++, UniPC, EDM, PNDM, …) and further schedules, as diffloom components.

All samplers are written in α, σ and log-SNR, so each runs on every path, down to clean data and up to zero
SNR.
"""
