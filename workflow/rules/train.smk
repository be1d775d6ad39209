# One training a (data set, method, seed). To resume a killed one, `hamflow train` keeps its state beside its outputs.


rule train:
    input:
        unpack(made_of("train")),
    output:
        checkpoint=RUN.checkpoint,
        made=RUN.checkpoints / paths.MADE,
        history=RUN.log,
        run=RUN.checkpoints / paths.CIRCUMSTANCES,
    log:
        PRESET.logs / "train" / f"{RUN.name}.log",
    priority: lambda w: targets.cost(config, w.dataset, w.method)
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
    params:
        at=at,
        recipe=recipe("train"),
    shell:  # SIGTERM, which SLURM sends to every process of a job, ends neither the shell nor tee before the state is saved
        "trap : TERM; "
        + job("train --keep", RUN.name).replace("> {log} 2>&1", "2>&1 | (trap '' TERM; exec tee {log})")
