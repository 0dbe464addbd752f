"""MiSLAS: calibrated two-stage learning with mixup and label-aware smoothing (Zhong et al., CVPR 2021)."""
