"""The combiner of PIM and HERBS: selected locations of all levels, joined by a graph convolution to one feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LOCATIONS_PER_JOINT = 64


class GraphCombiner(nn.Module):
    """Selected locations [B, S, D] to one feature vector [B, D] for each image.

    The S locations are mixed to J nodes ("joints") by learned weights; a graph convolution follows, whose adjacency is
    a learned J x J matrix plus ``alpha`` tanh(q_i - k_j) of the nodes themselves; the nodes are then mixed to one
    (PIM, arXiv 2202.03822, section 3.3, in the details of the released code). The mixing weights belong to ranks, so
    locations come in the order in which they were selected.

    HERBS's released code has J = S // 64 (7 at S = 480), PIM's S // 32 (85 at S = 2,720), and both fail below one
    joint; here J is at least 2.

    Args:
        width: D.
        selected: S, over all levels.
        joints: J; None: one for ``locations_per_joint`` locations.
        dropout: of the feature vector.
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
        nodes = _mixed(self.to_joints, locations)
        differences = self.query(nodes).mean(2).unsqueeze(2) - self.key(nodes).mean(2).unsqueeze(1)
        adjacency = self.adjacency + self.alpha * torch.tanh(differences)  # [B, J, J], from the first to the second
        nodes = adjacency.transpose(1, 2) @ self.convolution(nodes)
        nodes = self.norm(nodes.flatten(0, 1)).view_as(nodes)
        return self.dropout(_mixed(self.to_one, nodes).squeeze(1))


def _mixed(layer: nn.Linear, nodes: Tensor) -> Tensor:
    """``layer`` over the nodes instead of the channels, [B, N, D] -> [B, M, D], without moving either axis."""
    return layer.weight @ nodes + layer.bias.unsqueeze(1)
