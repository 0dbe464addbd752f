"""Combiner of PIM and HERBS: a graph convolution that joins the selected locations of all levels to one feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LOCATIONS_PER_JOINT = 64


class GraphCombiner(nn.Module):
    """Graph convolution from the selected locations [B, S, D] to one feature vector [B, D] per image.

    A linear layer mixes the S locations to J nodes ("joints"). The graph convolution has a learned J x J adjacency plus
    ``alpha`` tanh(q_i - k_j) of the nodes; a second linear layer mixes the nodes to one (PIM, arXiv 2202.03822,
    section 3.3; details as in the released code). The mixing weights belong to ranks: locations must be in the order of
    their selection.

    HERBS's released code uses J = S // 64 (7 at S = 480) and PIM's S // 32 (85 at S = 2,720); both fail at J = 0. Here
    J is at least 2.

    Args:
        width: feature width D.
        selected: number of locations S, summed over all levels.
        joints: number of nodes J; None: S // ``locations_per_joint``.
        dropout: dropout probability of the feature vector.
    """

    def __init__(
        self,
        width: int,
        selected: int,
        joints: int | None = None,
        dropout: float = 0.1,
        *,
        locations_per_joint: int = LOCATIONS_PER_JOINT,
    ) -> None:
        super().__init__()
        joints = max(2, selected // locations_per_joint) if joints is None else joints
        self.selected = selected
        self.to_joints = nn.Linear(selected, joints)
        self.adjacency = nn.Parameter(torch.eye(joints) / 100 + 1 / 100)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.query = nn.Linear(width, max(1, width // 4))
        self.key = nn.Linear(width, max(1, width // 4))
        self.convolution = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.to_one = nn.Linear(joints, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, locations: Tensor) -> Tensor:
        nodes = _mix_nodes(self.to_joints, locations)
        differences = self.query(nodes).mean(2).unsqueeze(2) - self.key(nodes).mean(2).unsqueeze(1)
        # [B, J, J], edges from the first to the second axis
        adjacency = self.adjacency + self.alpha * torch.tanh(differences)
        nodes = adjacency.transpose(1, 2) @ self.convolution(nodes)
        nodes = self.norm(nodes.flatten(0, 1)).view_as(nodes)
        return self.dropout(_mix_nodes(self.to_one, nodes).squeeze(1))


def _mix_nodes(layer: nn.Linear, nodes: Tensor) -> Tensor:
    """Apply ``layer`` along the nodes instead of the channels, [B, N, D] -> [B, M, D], without a transposition."""
    return layer.weight @ nodes + layer.bias.unsqueeze(1)
