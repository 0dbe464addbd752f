"""Supervised contrastive learning on long tails: BCL (Zhu et al., CVPR 2022) and ProCo (Du et al., TPAMI 2024)."""
