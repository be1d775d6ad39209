# Data sets, shared by all presets. The arrays lie beside the manifest, which holds their sha256.


rule prepare:
    input:
        source=sources("data"),
    output:
        manifest="data/{dataset}/dataset.json",
    log:
        "logs/prepare/{dataset}.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec("dataset"),
        files=users_files,
        folder=subpath(output.manifest, parent=True),
    shell:
        "OMP_NUM_THREADS={threads} hamflow prepare --spec {params.spec:q} --output {params.folder} > {log} 2>&1"
