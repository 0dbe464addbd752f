"""Names that papers and other projects use, and the choice of ltr that each means, for messages about unknown names."""

from __future__ import annotations

_RATES = "optimizer=torch optimizer.name={}"
_MODEL = "backbone=timm backbone.name={}"
_SMOOTHED = "loss=label_aware_smoothing loss.head=0.1 loss.tail=0.1"  # equal values are plain label smoothing
_FOLDER = ("dataset=folder", "dataset=table")
_INAT18 = ("dataset=inat18_lists", "dataset=inat18")

# group -> name in small letters without punctuation -> choices, the best first
CONFIGS: dict[str, dict[str, tuple[str, ...]]] = {
    "loss": {
        **dict.fromkeys(("ce", "xent", "crossentropyloss", "softmax"), ("loss=cross_entropy",)),
        **dict.fromkeys(("bsce", "bsl", "balancedce", "balsoftmax"), ("loss=balanced_softmax",)),
        **dict.fromkeys(("la", "logitadjustment", "logitadjust"), ("loss=logit_adjusted", "method=posthoc_la")),
        **dict.fromkeys(("cb", "effectivenumber"), ("loss=class_balanced",)),
        "las": ("loss=label_aware_smoothing",),
        **dict.fromkeys(("labelsmoothing", "labelsmooth", "smoothing", "ls"), (_SMOOTHED,)),
        **dict.fromkeys(("eql", "seql"), ("loss=equalization",)),
    },
    "method": {
        **dict.fromkeys(("ce", "crossentropy", "baseline", "softmax"), ("method=erm",)),
        **dict.fromkeys(("la", "logitadjustment", "logitadjust"), ("method=posthoc_la", "loss=logit_adjusted")),
        **dict.fromkeys(("decoupling", "decouple"), ("method=crt", "method=lws", "method=tau_norm")),
        **dict.fromkeys(("protonet", "protonets"), ("method=prototypical",)),
        **dict.fromkeys(("selfsupervision", "rotation"), ("method=sla",)),
        **dict.fromkeys(("finetune", "finetuning", "fullfinetuning"), ("tune=all",)),
        **dict.fromkeys(("linearprobe", "linearprobing"), ("tune=none",)),
        **{name: (f"tune={name}",) for name in ("lora", "adapter", "vpt")},
        "maxlogit": ("evaluation.scorers=[max_logit]",),
        **{name: (f"evaluation.scorers=[{name}]",) for name in ("msp", "energy", "entropy")},
        **{
            name.lower(): (f"evaluation.scorers=[pytorch_ood.{name}]",)
            for name in ("OpenMax", "KNN", "ViM", "Mahalanobis", "GEN", "KLMatching")
        },
    },
    "sampler": {
        **dict.fromkeys(("random", "uniform", "default", "shuffle"), ("sampler=instance",)),
        **dict.fromkeys(
            ("weighted", "weightedrandom", "weightedrandomsampler", "oversampling", "ros"), ("sampler=class_balanced",)
        ),
        "sqrt": ("sampler=square_root",),
        **dict.fromkeys(("cbs", "cas", "classaware"), ("sampler=class_balanced",)),
        "ibs": ("sampler=instance",),
        "pbs": ("sampler=progressive",),
        **dict.fromkeys(("reverse", "reversed", "inverse"), ("sampler=power sampler.q=-1",)),
        "drs": ("sampler=class_balanced_deferred",),
    },
    "tune": {
        **dict.fromkeys(("full", "finetune", "backbone"), ("tune=all",)),
        **dict.fromkeys(("frozen", "freeze", "head", "linear", "linearprobe", "classifier"), ("tune=none",)),
        **dict.fromkeys(("bitfit", "biases"), ("tune=bias",)),
        **dict.fromkeys(("prompt", "prompts", "prompttuning"), ("tune=vpt",)),
        **dict.fromkeys(("bn", "ln", "layernorm", "batchnorm"), ("tune=norm",)),
        "adaptformer": ("tune=adapter",),
    },
    "backbone": {
        "resnet": ("backbone=resnet32", _MODEL.format("resnet50")),
        **dict.fromkeys(("vit", "vitb", "vitb16", "vitbase"), (_MODEL.format("vit_base_patch16_224"),)),
        **dict.fromkeys(("clip", "openclip"), (_MODEL.format("vit_base_patch16_clip_224"),)),
        **dict.fromkeys(("dino", "dinov2", "dinov2vitb14"), (_MODEL.format("vit_base_patch14_dinov2"),)),
    },
    "dataset": {
        "cifar": ("dataset=cifar10_lt", "dataset=cifar100_lt"),
        "places": ("dataset=places_lt",),
        **dict.fromkeys(("inat", "inaturalist", "inat2018", "inaturalist2018", "inaturalist18"), _INAT18),
        **dict.fromkeys(("cub200", "cub2002011", "cub2011"), ("dataset=cub",)),
        **dict.fromkeys(("custom", "imagefolder", "images", "own", "my", "mydata", "mydataset"), _FOLDER),
        **dict.fromkeys(("csv", "dataframe"), ("dataset=table",)),
    },
    "optimizer": {
        name.lower(): (_RATES.format(name),) for name in ("Adam", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta")
    },
    "scheduler": {
        **dict.fromkeys(("step", "steplr", "multisteplr"), ("scheduler=multistep",)),
        **dict.fromkeys(("cosineannealing", "cosineannealinglr", "coslr"), ("scheduler=cosine",)),
        **dict.fromkeys(("none", "null"), ("scheduler=constant",)),
    },
    "augment": {
        "mixup": ("augment=cifar_mixup", "augment.mix=mixup"),
        "cutmix": ("augment=cifar_cutmix", "augment.mix=cutmix"),
    },
    "logger": {"tb": ("logger=tensorboard",)},
    "debug": dict.fromkeys(("true", "default", "1", "on"), ("debug=fast",)),
}
# key of another project -> keys of ltr
KEYS: dict[str, tuple[str, ...]] = {
    "model": ("backbone", "method"),
    "net": ("backbone",),
    "arch": ("backbone", "backbone.name"),
    "pretrained": ("backbone.pretrained",),
    "checkpoint_path": ("backbone.weights", "method.start_from"),
    "ckpt_path": ("backbone.weights", "method.start_from"),
    "ckpt": ("backbone.weights", "method.start_from"),
    "data": ("dataset", "paths.data"),
    "datamodule": ("dataset",),
    "data_dir": ("paths.data", "dataset.root"),
    "data_path": ("paths.data", "dataset.root"),
    "data_root": ("paths.data", "dataset.root"),
    "data.root": ("paths.data", "dataset.root"),
    "root": ("dataset.root",),
    "optim": ("optimizer",),
    "opt": ("optimizer",),
    "sched": ("scheduler",),
    "lr_scheduler": ("scheduler",),
    "wd": ("optimizer.weight_decay",),
    "momentum": ("optimizer.momentum",),
    "bs": ("batch_size",),
    "epochs": ("trainer.max_epochs",),
    "lr": ("optimizer.lr",),
    "representation.epochs": ("trainer.max_epochs",),
    "method.representation.epochs": ("trainer.max_epochs",),
    "workers": ("trainer.num_workers",),
    "num_workers": ("trainer.num_workers",),
    "gpu": ("trainer.devices",),
    "gpus": ("trainer.devices",),
    "device": ("trainer.accelerator", "trainer.devices"),
    "devices": ("trainer.devices",),
    "amp": ("trainer.precision",),
    "precision": ("trainer.precision",),
    "imb_factor": ("dataset.imbalance_factor",),
    "imb_ratio": ("dataset.imbalance_factor",),
    "cutmix": ("augment.mix",),
    "mixup": ("augment.mix",),
    "wandb": ("logger",),
    "output_dir": ("paths.outputs",),
    "out": ("paths.outputs",),
    "work_dir": ("paths.outputs",),
    "log_dir": ("paths.outputs",),
    "save_dir": ("paths.outputs",),
}
# the same for keys below a group
_BELOW: dict[str, dict[str, tuple[str, ...]]] = {
    "dataset": {
        **dict.fromkeys(("dir", "data_dir", "image_dir"), ("dataset.root",)),
        **dict.fromkeys(("table", "csv"), ("dataset.file",)),
        "path": ("dataset.root", "dataset.file"),
        **dict.fromkeys(("imb", "imb_factor", "imb_ratio"), ("dataset.imbalance_factor",)),
        "val_split": ("dataset.val_fraction",),
        "batch_size": ("batch_size",),
    },
    "loss": {"s": ("loss.scale",), **dict.fromkeys(("drw", "reweight"), ("loss.beta", "loss.defer_from"))},
    "method": {"epochs": ("method.classifier.epochs", "trainer.max_epochs")},
    "optimizer": {"wd": ("optimizer.weight_decay",), "learning_rate": ("optimizer.lr",)},
    "scheduler": {"decay": ("scheduler.gamma",), "eta_min": ("scheduler.final",), "T_max": ("trainer.max_epochs",)},
    # of Lightning projects
    "trainer": {
        "gpus": ("trainer.devices",),
        "num_gpus": ("trainer.devices",),
        "device": ("trainer.accelerator", "trainer.devices"),
        "num_epochs": ("trainer.max_epochs",),
        "lr": ("optimizer.lr",),
        "amp": ("trainer.precision",),
        "strategy": ("strategy",),
        "accumulate_grad_batches": ("trainer.accumulate",),
        "gradient_clip_val": ("trainer.gradient_clip",),
        "log_every_n_steps": ("trainer.log_every",),
        "fast_dev_run": ("debug",),
        **dict.fromkeys(("val_every", "check_val_every_n_epoch", "val_check_interval"), ("evaluation.every_n_epochs",)),
    },
}
KEYS |= {f"{group}.{name}": choices for group, names in _BELOW.items() for name, choices in names.items()}
# key of some data sets -> key of the others with the same purpose
SAME_PURPOSE = {"dataset.image_size": "dataset.resize_to", "dataset.resize_to": "dataset.image_size"}
# key of other projects -> overrides of ltr with the same effect
OVERRIDES = {
    f"{group}{name}": _SMOOTHED for group in ("", "loss.") for name in ("label_smoothing", "smoothing", "smooth")
}
