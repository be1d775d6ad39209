# All settings (sampler, NFE) of one checkpoint in one job: loading the libraries costs more than drawing the samples.
# A rule for each list of settings: `sample` and `evaluate` for that of the parameters, and others for methods that have their own.

for settings, methods in targets.methods_by_settings(config).items():
    own = "" if "samplers" not in config["methods"][methods[0]] else f"_{methods[0]}"

    rule:
        name:
            f"sample{own}"
        input:
            unpack(made_of("sample")),
        output:
            samples=[RUN.samples / f"{setting}.npy" for setting in settings],
            records=[RUN.samples / f"{setting}.json" for setting in settings],
            made=RUN.samples / paths.MADE,
            run=RUN.samples / paths.CIRCUMSTANCES,
        log:
            PRESET.logs / "sample" / f"{RUN.name}.log",
        wildcard_constraints:
            method="|".join(methods),
        conda:
            ENVIRONMENT
        resources:
            gpu=GPU,
        params:
            at=at,
            recipe=recipe("sample"),
        shell:
            job("sample", RUN.name)

    rule:
        name:
            f"evaluate{own}"
        input:
            unpack(made_of("evaluate")),
        output:
            metrics=[RUN.metrics / f"{setting}.json" for setting in settings],
            made=RUN.metrics / paths.MADE,
            run=RUN.metrics / paths.CIRCUMSTANCES,
        log:
            PRESET.logs / "evaluate" / f"{RUN.name}.log",
        wildcard_constraints:
            method="|".join(methods),
        conda:
            ENVIRONMENT
        resources:
            gpu=GPU,
        params:
            at=at,
            recipe=recipe("evaluate"),
        shell:
            job("evaluate", RUN.name)
