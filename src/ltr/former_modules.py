"""Import aliases of modules of earlier versions, for one more release.

Importing one gives the contents of its successor, with a notice. Former names of classes are translated as well. Stored
files need none of this (see `ltr.former_paths`).
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

FORMER_MODULES: dict[str, str] = {
    "ltr.arguments": "ltr.commands.arguments",
    "ltr.configuration.judging": "ltr.configuration.evaluation_overrides",
    "ltr.configuration.pages": "ltr.configuration.configs",
    "ltr.configuration.swept_pages": "ltr.configuration.swept_configs",
    "ltr.dashboard_command": "ltr.commands.dashboard",
    "ltr.data.archives": "ltr.data.sources.archives",
    "ltr.data.augment": "ltr.data.augmentation.augment",
    "ltr.data.boxes": "ltr.data.images.boxes",
    "ltr.data.checking": "ltr.data.images.checking",
    "ltr.data.class_index": "ltr.data.sampling.class_index",
    "ltr.data.crop": "ltr.data.images.crop",
    "ltr.data.decode": "ltr.data.images.decode",
    "ltr.data.doubts": "ltr.data.label_warnings",
    "ltr.data.download_hints": "ltr.data.sources.download_hints",
    "ltr.data.duplicates": "ltr.data.deduplication.duplicates",
    "ltr.data.exclusion": "ltr.data.splitting.exclusion",
    "ltr.data.feature_loader": "ltr.data.loaders.features",
    "ltr.data.feature_table": "ltr.data.loaders.feature_table",
    "ltr.data.files": "ltr.data.loaders.files",
    "ltr.data.group_description": "ltr.data.splitting.group_description",
    "ltr.data.group_division": "ltr.data.splitting.groups",
    "ltr.data.joint_transforms": "ltr.data.augmentation.joint_transforms",
    "ltr.data.loading": "ltr.data.loaders.device",
    "ltr.data.mixing": "ltr.data.augmentation.mixing",
    "ltr.data.near_duplicates": "ltr.data.deduplication.near_duplicates",
    "ltr.data.opening": "ltr.data.loaders.opening",
    "ltr.data.overlap": "ltr.data.deduplication.overlap",
    "ltr.data.packed": "ltr.data.packed_images.reading",
    "ltr.data.packed_checks": "ltr.data.packed_images.checks",
    "ltr.data.packing": "ltr.data.packed_images.writing",
    "ltr.data.per_class_sampler": "ltr.data.sampling.per_class",
    "ltr.data.pixel_operations": "ltr.data.augmentation.pixel_operations",
    "ltr.data.places": "ltr.data.sources.download_hints",
    "ltr.data.policies": "ltr.data.augmentation.policies",
    "ltr.data.published": "ltr.data.splitting.published",
    "ltr.data.readers": "ltr.data.loaders.readers",
    "ltr.data.real_paths": "ltr.data.images.real_paths",
    "ltr.data.regions": "ltr.data.images.regions",
    "ltr.data.replacement": "ltr.data.loaders.replacement",
    "ltr.data.samplers": "ltr.data.sampling.samplers",
    "ltr.data.sources.own_groups": "ltr.data.sources.custom_groups",
    "ltr.data.split_background": "ltr.data.splitting.background",
    "ltr.data.split_building": "ltr.data.splitting.building",
    "ltr.data.split_camera_traps": "ltr.data.splitting.camera_traps",
    "ltr.data.split_open_set": "ltr.data.splitting.open_set",
    "ltr.data.split_retrieval": "ltr.data.splitting.retrieval",
    "ltr.data.splits": "ltr.data.splitting.closed_set",
    "ltr.data.tally": "ltr.data.images.tally",
    "ltr.data_command": "ltr.commands.data",
    "ltr.evaluate_command": "ltr.commands.evaluate",
    "ltr.export_command": "ltr.commands.export",
    "ltr.losses.herbs": "ltr.methods.herbs.losses",
    "ltr.losses.open_set": "ltr.methods.reciprocal_points.losses",
    "ltr.methods.arpl_cs": "ltr.methods.reciprocal_points.arpl_cs",
    "ltr.methods.background_classifier": "ltr.methods.background_splitting.network",
    "ltr.methods.base": "ltr.methods.core.network",
    "ltr.methods.checkpoint": "ltr.methods.core.checkpoint",
    "ltr.methods.decoupled": "ltr.methods.decoupling.retrained",
    "ltr.methods.description": "ltr.methods.core.description",
    "ltr.methods.embedding": "ltr.methods.reciprocal_points.feature_history",
    "ltr.methods.ensemble": "ltr.methods.sla.ensemble",
    "ltr.methods.extras": "ltr.methods.distillation.terms",
    "ltr.methods.foreign_herbs": "ltr.methods.herbs.released_weights",
    "ltr.methods.generation": "ltr.methods.core.generation",
    "ltr.methods.herbs_network": "ltr.methods.herbs.network",
    "ltr.methods.m2m_classifier": "ltr.methods.m2m.network",
    "ltr.methods.m2m_sheet": "ltr.methods.m2m.examples",
    "ltr.methods.m2m_slots": "ltr.methods.m2m.seeds",
    "ltr.methods.ncm": "ltr.methods.decoupling.ncm",
    "ltr.methods.partition": "ltr.methods.background_splitting.partition",
    "ltr.methods.points": "ltr.methods.reciprocal_points.base",
    "ltr.methods.posthoc": "ltr.methods.decoupling.posthoc",
    "ltr.methods.prototypes": "ltr.methods.reciprocal_points.gcpl",
    "ltr.methods.pseudo_labels": "ltr.methods.background_splitting.pseudo_labels",
    "ltr.methods.reciprocal": "ltr.methods.reciprocal_points.arpl",
    "ltr.methods.representation": "ltr.methods.decoupling.representation",
    "ltr.methods.rkd": "ltr.methods.distillation.rkd",
    "ltr.methods.smote": "ltr.methods.decoupling.smote",
    "ltr.methods.stage": "ltr.methods.core.stage",
    "ltr.methods.step_data": "ltr.methods.core.step_data",
    "ltr.methods.teacher": "ltr.methods.distillation.teacher",
    "ltr.methods.transformed": "ltr.methods.sla.transformed",
    "ltr.mine_command": "ltr.commands.mine",
    "ltr.models.background_head": "ltr.methods.background_splitting.head",
    "ltr.models.combiner": "ltr.methods.herbs.combiner",
    "ltr.models.confusing_samples": "ltr.methods.reciprocal_points.confusing_samples",
    "ltr.models.pyramid": "ltr.methods.herbs.pyramid",
    "ltr.models.reciprocal_points": "ltr.methods.reciprocal_points.heads",
    "ltr.models.selection": "ltr.methods.herbs.selection",
    "ltr.predict_command": "ltr.commands.predict",
    "ltr.report.against": "ltr.report.paired_tests",
    "ltr.report.arrays": "ltr.report.read_run",
    "ltr.report.beside": "ltr.report.published_lookup",
    "ltr.report.collect": "ltr.report.read_run",
    "ltr.report.data_pictures": "ltr.report.data_figures",
    "ltr.report.evaluations": "ltr.report.compose",
    "ltr.report.gather": "ltr.report.read_runs",
    "ltr.report.judged": "ltr.report.compose",
    "ltr.report_command": "ltr.commands.report",
    "ltr.runs.accumulation": "ltr.runs.training.accumulation",
    "ltr.runs.counted_epochs": "ltr.runs.tracking.counted_epochs",
    "ltr.runs.deployment_prior": "ltr.runs.evaluation.deployment_prior",
    "ltr.runs.device": "ltr.runs.processes.device",
    "ltr.runs.distributed": "ltr.runs.processes.distributed",
    "ltr.runs.epoch_log": "ltr.runs.training.epoch_log",
    "ltr.runs.evaluate": "ltr.runs.evaluation.network",
    "ltr.runs.evaluate_checkpoints": "ltr.runs.evaluation.checkpoints",
    "ltr.runs.evaluate_network": "ltr.runs.evaluation.network",
    "ltr.runs.evaluate_split": "ltr.runs.evaluation.split",
    "ltr.runs.evaluation_folder": "ltr.runs.evaluation.folder",
    "ltr.runs.evaluations": "ltr.runs.evaluation.folder",
    "ltr.runs.fitting": "ltr.runs.evaluation.input_adapter",
    "ltr.runs.group": "ltr.runs.processes.distributed",
    "ltr.runs.guards": "ltr.runs.training.guards",
    "ltr.runs.input_adapter": "ltr.runs.evaluation.input_adapter",
    "ltr.runs.interrupt": "ltr.runs.processes.interrupt",
    "ltr.runs.judge": "ltr.runs.evaluation.checkpoints",
    "ltr.runs.kept_for_pictures": "ltr.runs.figure_arrays",
    "ltr.runs.launch": "ltr.runs.processes.launch",
    "ltr.runs.location_stats": "ltr.runs.evaluation.location_stats",
    "ltr.runs.loggers": "ltr.runs.tracking.loggers",
    "ltr.runs.looks": "ltr.runs.evaluation.location_stats",
    "ltr.runs.micro_batch": "ltr.runs.training.micro_batch",
    "ltr.runs.overlap": "ltr.runs.evaluation.overlap",
    "ltr.runs.parts": "ltr.runs.training.micro_batch",
    "ltr.runs.place": "ltr.runs.processes.process_info",
    "ltr.runs.process_info": "ltr.runs.processes.process_info",
    "ltr.runs.progress": "ltr.runs.training.progress",
    "ltr.runs.protocols": "ltr.runs.evaluation.protocols",
    "ltr.runs.solve": "ltr.runs.training.solve",
    "ltr.runs.strategies": "ltr.runs.processes.strategies",
    "ltr.runs.train": "ltr.runs.training.train",
    "ltr.runs.training_doubts": "ltr.runs.training.doubts",
    "ltr.runs.training_state": "ltr.runs.training.state",
    "ltr.runs.validation": "ltr.runs.training.validation",
    "ltr.runs.wandb_run": "ltr.runs.tracking.wandb_run",
    "ltr.runs.watch": "ltr.runs.training.validation",
    "ltr.stages_command": "ltr.commands.stages",
    "ltr.train_command": "ltr.commands.train",
}

# today's module -> former name -> today's
FORMER_NAMES: dict[str, dict[str, str]] = {
    "ltr.methods.core.stage": {"DataFacts": "DatasetInfo"},
}


class FormerModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finder and loader of the modules in ``FORMER_MODULES``; it is asked after all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in FORMER_MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        successor = FORMER_MODULES[module.__name__]
        warnings.warn(
            f"{module.__name__} is now {successor}. The former name works until the next release",
            FutureWarning,
            stacklevel=2,
        )
        current = importlib.import_module(successor)
        former_names = FORMER_NAMES.get(successor, {})

        def attribute(name: str) -> Any:
            return getattr(current, former_names.get(name, name))

        module.__getattr__ = attribute  # type: ignore[method-assign]
        module.__doc__ = current.__doc__


def install() -> None:
    """Install the import aliases."""
    if not any(isinstance(finder, FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(FormerModules())
