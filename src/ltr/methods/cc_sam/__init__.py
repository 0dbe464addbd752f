"""CC-SAM: class-conditional sharpness-aware minimisation (Zhou et al., CVPR 2023)."""
