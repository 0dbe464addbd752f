"""Weight balancing: tuned weight decay and MaxNorm (Alshammari et al., CVPR 2022)."""
