"""DDPM (Ho, Jain & Abbeel 2020): its schedules, network, sampler and task, as plugins."""
