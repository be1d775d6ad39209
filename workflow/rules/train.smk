# One training a (data set, method, seed). To resume a killed one, `hamflow train` keeps its state beside its outputs.


rule train:
    input:
        manifest="data/{dataset}/dataset.json",
        source=sources("training", "networks", "parameterisation", "flows", "dynamics", "data"),
    output:
        checkpoint=f"{CHECKPOINTS}/{RUN}/model.safetensors",
        history=f"{CHECKPOINTS}/{RUN}/train.jsonl",
        run=f"{CHECKPOINTS}/{RUN}/run.json",
    log:
        f"{LOGS}/train/{RUN}.log",
    priority: training_kimg
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
    params:
        spec=spec("training"),
        data=subpath(input.manifest, parent=True),
        folder=subpath(output.checkpoint, parent=True),
    shell:  # SIGTERM, which SLURM sends to every process of a job, ends neither the shell nor tee before the state is saved
        "trap : TERM; OMP_NUM_THREADS={threads} hamflow train --spec {params.spec:q} --data {params.data}"
        " --seed {wildcards.seed} --output {params.folder} --keep 2>&1 | (trap '' TERM; exec tee {log})"
