# What samples are compared with, and what needs none. The job of a reference also measures real data against it: the bound.
# A record in metrics/ or studies/ is equal bytes for equal work; commit, host and seconds stand in run.json beside it.

for features in sorted({features_of(dataset) for dataset in DATASETS}):

    rule:
        name:
            f"reference_{features}"
        input:
            unpack(made_of("reference")),
        output:
            statistics=PRESET.reference("{dataset}", features),
            made=paths.made_of(PRESET.reference("{dataset}", features)),
            bound=PRESET.bound("{dataset}").metrics / f"{paths.BOUND_SETTING}.json",
            run=PRESET.bound("{dataset}").metrics / paths.CIRCUMSTANCES,
        log:
            PRESET.logs / "reference" / "{dataset}" / f"{features}.log",
        wildcard_constraints:
            dataset="|".join(dataset for dataset in DATASETS if features_of(dataset) == features),
        conda:
            ENVIRONMENT
        resources:
            gpu=GPU,
        params:
            at=at,
            recipe=recipe("reference"),
        shell:
            job("evaluate", "{dataset}")


rule discrepancy:
    input:
        unpack(made_of("discrepancy")),
    output:
        metrics=RUN.metrics / f"{paths.HSD}.json",
        made=RUN.metrics / f"{paths.HSD}.{paths.MADE}",
        run=RUN.metrics / f"{paths.HSD}.{paths.CIRCUMSTANCES}",
    log:
        PRESET.logs / "discrepancy" / f"{RUN.name}.log",
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
    params:
        at=at,
        recipe=recipe("discrepancy"),
    shell:
        job("discrepancy", RUN.name)


rule tournament:  # where `metrics.tournament` is true
    input:
        unpack(made_of("tournament")),
    output:
        result=PRESET.tournament("{dataset}"),
        made=paths.made_of(PRESET.tournament("{dataset}")),
    log:
        PRESET.logs / "tournament" / "{dataset}.log",
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
    params:
        at=at,
        recipe=recipe("tournament"),
    shell:
        job("tournament", "{dataset}")


rule study:
    input:
        unpack(made_of("study")),
    output:
        result=PRESET.study("{study}"),
        made=paths.made_of(PRESET.study("{study}")),
        run=paths.circumstances_of(PRESET.study("{study}")),
    log:
        PRESET.logs / "study" / "{study}.log",
    conda:
        ENVIRONMENT
    params:
        at=at,
        recipe=recipe("study"),
    shell:
        job("study", "{study}")
