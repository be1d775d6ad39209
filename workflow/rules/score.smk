# Hamiltonian score matching: the validation experiments of the paper, and the discrepancy (HSD) of every trained model.


rule hsd:
    input:
        checkpoint=f"{CHECKPOINTS}/{RUN}/model.safetensors",
        manifest="data/{dataset}/dataset.json",
        source=sources("score.model", "score.estimators", "networks", "parameterisation", "flows", "data"),
    output:
        metrics=f"{RESULTS}/metrics/{RUN}/hsd.json",
        values=f"{RESULTS}/values/{RUN}/hsd.json",
    log:
        f"{LOGS}/hsd/{RUN}.log",
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
    params:
        spec=spec("hsd"),
        data=subpath(input.manifest, parent=True),
    shell:
        "OMP_NUM_THREADS={threads} hamflow score model --spec {params.spec:q} --checkpoint {input.checkpoint}"
        " --data {params.data} --output {output.metrics} --values {output.values} > {log} 2>&1"


rule score_experiment:
    input:
        source=lambda w: source_files((f"studies.{w.experiment}", "score.estimators"), frozenset()),
    output:
        result=f"{RESULTS}/score/{{experiment}}.json",
        values=f"{RESULTS}/score/values/{{experiment}}.json",
    log:
        f"{LOGS}/score/{{experiment}}.log",
    conda:
        ENVIRONMENT
    params:
        spec=lambda w: canonical_json(config["score"]["experiments"][w.experiment]),
    shell:
        "OMP_NUM_THREADS={threads} hamflow score {wildcards.experiment} --spec {params.spec:q} --output {output.result}"
        " --values {output.values} > {log} 2>&1"


rule plot_score:
    input:
        result=rules.score_experiment.output.values,
        source=sources("report.score"),
    output:
        png=report(
            f"{RESULTS}/figures/score-{{experiment}}.png",
            caption="../report/score.rst",
            category="Score matching",
            labels={"figure": "{experiment}", "preset": PRESET},
        ),
        pdf=f"{RESULTS}/figures/score-{{experiment}}.pdf",
    log:
        f"{LOGS}/plot/score-{{experiment}}.log",
    conda:
        ENVIRONMENT
    shell:
        "hamflow score plot --input {input.result} --output {output.png} > {log} 2>&1"


rule tabulate_score:
    input:
        result=f"{RESULTS}/score/values/comparison.json",
        source=sources("report.score"),
    output:
        csv=report(
            f"{RESULTS}/tables/score.csv",
            caption="../report/score.rst",
            category="Score matching",
            labels={"figure": "comparison, every line", "preset": PRESET},
        ),
        text=f"{RESULTS}/tables/score.md",
    log:
        f"{LOGS}/tabulate-score.log",
    conda:
        ENVIRONMENT
    shell:
        "hamflow score table --input {input.result} --output {output.csv} > {log} 2>&1"
