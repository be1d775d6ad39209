# All settings (sampler, NFE) of one checkpoint in one job: loading the libraries costs more than drawing the samples.


rule sample:
    input:
        checkpoint=f"{CHECKPOINTS}/{RUN}/model.safetensors",
        manifest="data/{dataset}/dataset.json",
        source=sources("sampling", "networks", "parameterisation", "flows", "dynamics"),
    output:
        samples=[f"{RESULTS}/samples/{RUN}/{setting}.npy" for setting in SETTINGS],
        records=[f"{RESULTS}/samples/{RUN}/{setting}.json" for setting in SETTINGS],
        run=f"{RESULTS}/samples/{RUN}/run.json",
    log:
        f"{LOGS}/sample/{RUN}.log",
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
    params:
        spec=spec("sampling"),
        data=subpath(input.manifest, parent=True),
        folder=lambda w, output: os.path.dirname(output.samples[0]),
    shell:
        "rm -rf {params.folder} && OMP_NUM_THREADS={threads} hamflow sample --spec {params.spec:q} --checkpoint {input.checkpoint}"
        " --data {params.data} --seed {wildcards.seed} --output {params.folder} > {log} 2>&1"
