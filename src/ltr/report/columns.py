"""Which metrics small tables show of each protocol, under which headings; all of them stand in ``result.json``."""

from __future__ import annotations

COLUMNS: dict[str, dict[str, str]] = {
    "closed_set": {
        "accuracy": "all",
        "many": "many",
        "medium": "medium",
        "few": "few",
        "balanced_accuracy": "bACC",
        "geometric_mean": "GM",
        "macro_f1": "F1",
        "ece": "ECE",
    },
    "background": {
        "map": "mAP",
        "macro_f1": "F1",
        "macro_precision": "precision",
        "macro_recall": "recall",
        "precision_at_10": "P@10",
        "recall_at_precision_90": "R@P90",
        "false_alarms_per_thousand": "alarms ‰",
    },
    "open_set": {
        "closed_set_accuracy": "known",
        "auroc": "AUROC",
        "aupr_known": "AUPR known",
        "aupr_unknown": "AUPR unknown",
        "fpr95_id_pos": "FPR95 id+",
        "fpr95_ood_pos": "FPR95 ood+",
        "oscr": "OSCR",
        "open_macro_f1_validation": "F1 val",
    },
    "retrieval": {
        **{f"recall_at_{k}": f"R@{k}" for k in (1, 2, 4, 8, 10, 100, 1000)},
        "map_at_r": "MAP@R",
        "r_precision": "R-precision",
        "nmi": "NMI",
    },
    "few_shot": {"accuracy": "all", "accuracy_ci95": "± 95 %"},
}

# those of published tables, in their order
MAIN = {
    "closed_set": ("accuracy", "many", "medium", "few", "balanced_accuracy"),
    "background": ("map", "macro_f1", "macro_precision", "macro_recall", "precision_at_10"),
    "open_set": ("auroc", "aupr_known", "aupr_unknown", "oscr", "closed_set_accuracy"),
    "retrieval": (*(f"recall_at_{k}" for k in (1, 2, 4, 8)), "map_at_r"),
    "few_shot": ("accuracy",),
}

# of networks that select locations, where a data set has bounding boxes; `ltr.runs.location_stats` says what they are
LOOKS = {
    "selected_in_box": "selected in box",
    "all_in_box": "all in box",
    "dropped_in_box": "dropped in box",
    "dropped_tanh": "dropped tanh",
}

COUNTS = ("queries", "episodes")  # of what was judged
UNRANKED = (*COUNTS, "accuracy_ci95", "all_in_box")  # no method is better for a larger one
# numbers that are no fractions: they are shown as they are
NO_FRACTIONS = ("false_alarms_per_thousand", "dropped_tanh", *COUNTS)
PERCENT = frozenset(name for columns in COLUMNS.values() for name in columns) - frozenset(NO_FRACTIONS)
