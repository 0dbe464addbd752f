"""Experts on shared early stages: RIDE (Wang et al., ICLR 2021), SADE (Zhang et al., NeurIPS 2022)."""
