# Distances between samples and data. The reference job also measures real data against the reference: the bound.
# metrics/ holds the whole record of a measurement; values/ the same without commit, host and seconds. What follows is made
# from values/, which are equal bytes for equal work, and are what DVC keeps.

for features in sorted({features_of(dataset) for dataset in DATASETS}):

    rule:
        name:
            f"reference_{features}"
        input:
            manifest="data/{dataset}/dataset.json",
            source=sources("metrics", "data"),
        output:
            statistics=f"{RESULTS}/reference/{{dataset}}/{features}.npz",
            bound=f"{RESULTS}/metrics/{{dataset}}/data/seed0/real-nfe0.json",
            values=f"{RESULTS}/values/{{dataset}}/data/seed0/real-nfe0.json",
        log:
            f"{LOGS}/reference/{{dataset}}/{features}.log",
        wildcard_constraints:
            dataset="|".join(dataset for dataset in DATASETS if features_of(dataset) == features),
        conda:
            ENVIRONMENT
        resources:
            gpu=GPU,
        params:
            spec=spec("evaluation"),
            data=subpath(input.manifest, parent=True),
            folder=subpath(output.bound, parent=True),
            values=subpath(output.values, parent=True),
        shell:
            "OMP_NUM_THREADS={threads} hamflow evaluate --spec {params.spec:q} --data {params.data}"
            " --reference {output.statistics} --output {params.folder} --values {params.values} > {log} 2>&1"


rule evaluate:
    input:
        samples=rules.sample.output.samples,
        records=rules.sample.output.records,
        manifest="data/{dataset}/dataset.json",
        reference=lambda w: f"{RESULTS}/reference/{w.dataset}/{features_of(w.dataset)}.npz",
        source=sources("metrics", "data"),
    output:
        metrics=[f"{RESULTS}/metrics/{RUN}/{setting}.json" for setting in SETTINGS],
        values=[f"{RESULTS}/values/{RUN}/{setting}.json" for setting in SETTINGS],
    log:
        f"{LOGS}/evaluate/{RUN}.log",
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
    params:
        spec=spec("evaluation"),
        data=subpath(input.manifest, parent=True),
        samples=lambda w, input: os.path.dirname(input.samples[0]),
        folder=lambda w, output: os.path.dirname(output.metrics[0]),
        values=lambda w, output: os.path.dirname(output.values[0]),
    shell:
        "rm -f {params.folder}/*-nfe*.json {params.values}/*-nfe*.json && OMP_NUM_THREADS={threads} hamflow evaluate"
        " --spec {params.spec:q} --data {params.data} --reference {input.reference} --samples {params.samples}"
        " --output {params.folder} --values {params.values} > {log} 2>&1"
