# Tables, figures, and MLflow. `snakemake --report results/<preset>/report.html` (or `make report`) gathers them in one page.

PUBLISH = "hamflow publish --uri {uri} --experiment {experiment}".format(
    **{key: shlex.quote(value) for key, value in config["tracking"].items()}
)


onstart:
    pipeline.write_parameters(config, PRESET)
    pipeline.say_if_no_commit()
    # MLflow's store is created once, before the jobs that stream to it. It is no rule: a store that was deleted, or another
    # one, must not make any job look outdated. One that cannot be had stops nothing.
    if TRACKED:
        shell("{PUBLISH} --init || true")


onsuccess:
    pipeline.forget_kept_checkpoints(PRESET)
    # MLflow gets what was not streamed: metrics, table, figures. A store that is away fails nothing: its paragraph says how to
    # publish later.
    if TRACKED and PRESET.metrics.is_dir():
        shell(
            "mkdir -p {PRESET.logs} && {PUBLISH} {PRESET.name} > {PRESET.logs}/publish.log 2>&1"
            " || cat {PRESET.logs}/publish.log >&2"
        )


rule tabulate:
    input:
        unpack(made_of("tabulate")),
    output:
        csv=report(
            PRESET.table("table1.csv"),
            caption="../report/table1.rst",
            category="Tables",
            labels={"table": "Table 1, every line", "preset": PRESET.name},
        ),
        html=report(
            PRESET.table("table1.html"),
            caption="../report/table1.rst",
            category="Tables",
            labels={"table": "Table 1, as in the paper", "preset": PRESET.name},
        ),
        text=multiext(str(PRESET.table("table1")), ".md", ".tex"),
        summary=PRESET.table("summary.json"),
        cost=multiext(str(PRESET.table("cost.run")), ".md", ".html"),
        made=paths.made_of(PRESET.table("table1.csv")),
    log:
        PRESET.logs / "tabulate.log",
    conda:
        ENVIRONMENT
    params:
        at=at,
        recipe=recipe("tabulate"),
    shell:
        job("tabulate")


rule tabulate_study:
    input:
        unpack(made_of("tabulate_study")),
    output:
        csv=report(
            PRESET.table("{table}.csv"),
            caption="../report/figure.rst",
            category="Tables",
            labels={"table": "{table}, every line", "preset": PRESET.name},
        ),
        text=PRESET.table("{table}.md"),
        made=paths.made_of(PRESET.table("{table}.csv")),
    log:
        PRESET.logs / "tabulate-{table}.log",
    conda:
        ENVIRONMENT
    params:
        at=at,
        caption=lambda w: figures.caption(config, f"study-{targets.STUDY_TABLES[w.table]}"),
        study=lambda w: targets.STUDY_TABLES[w.table],
        recipe=recipe("tabulate_study"),
    shell:
        job("tabulate", "{params.study}")


rule tabulate_models:
    input:
        unpack(made_of("tabulate_models")),
    output:
        csv=report(
            PRESET.table("{models}.csv"),
            caption="../report/figure.rst",
            category="Tables",
            labels=lambda w: {
                "table": f"{model_tables.TITLES[w.models]}, every line",
                "preset": PRESET.name,
            },
        ),
        html=report(
            PRESET.table("{models}.html"),
            caption="../report/figure.rst",
            category="Tables",
            labels=lambda w: {"table": model_tables.TITLES[w.models], "preset": PRESET.name},
        ),
        text=PRESET.table("{models}.md"),
        made=paths.made_of(PRESET.table("{models}.csv")),
    log:
        PRESET.logs / "tabulate-{models}.log",
    conda:
        ENVIRONMENT
    params:
        at=at,
        caption=lambda w: model_tables.caption(config, w.models),
        recipe=recipe("tabulate_models"),
    shell:
        job("tabulate", "{models}")


rule plot:
    input:
        unpack(made_of("plot")),
    output:
        png=report(
            PRESET.figure("{figure}"),
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "preset": PRESET.name},
        ),
        pdf=PRESET.figure("{figure}", ".pdf"),
        made=paths.made_of(PRESET.figure("{figure}")),
    log:
        PRESET.logs / "plot" / "{figure}.log",
    conda:
        ENVIRONMENT
    params:
        at=at,
        caption=lambda w: figures.caption(config, w.figure),
        recipe=recipe("plot"),
    shell:
        job("plot", "{figure}")
