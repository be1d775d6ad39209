# Table, figures, and MLflow. `snakemake --report results/<preset>/report.html` (or `make report`) gathers them in one page.


onstart:
    # MLflow's store is created once, before the jobs that stream to it. It is no rule: a store that was deleted, or another
    # one, must not make any job look outdated. One that cannot be had stops nothing.
    if TRACKED:
        shell(
            "hamflow publish --init --uri {config[tracking][uri]:q} --experiment {config[tracking][experiment]:q} || true"
        )


onsuccess:
    forget_kept_checkpoints()
    # MLflow gets what was not streamed: metrics, table, figures. A store that is away fails nothing: its paragraph says how to
    # publish later.
    if TRACKED and Path(f"{RESULTS}/values").is_dir():
        shell(
            "mkdir -p {LOGS} && hamflow publish --results {RESULTS} --checkpoints {CHECKPOINTS}"
            " --uri {config[tracking][uri]:q} --experiment {config[tracking][experiment]:q}"
            " > {LOGS}/publish.log 2>&1 || cat {LOGS}/publish.log >&2"
        )


rule tabulate:
    input:
        values=all_values(),
        source=sources("report.tables"),
    output:
        csv=report(
            f"{RESULTS}/tables/table1.csv",
            caption="../report/table1.rst",
            category="Tables",
            labels={"table": "Table 1, every line", "preset": PRESET},
        ),
        html=report(
            f"{RESULTS}/tables/table1.html",
            caption="../report/table1.rst",
            category="Tables",
            labels={"table": "Table 1, as in the paper", "preset": PRESET},
        ),
        text=multiext(f"{RESULTS}/tables/table1", ".md", ".tex"),
        summary=f"{RESULTS}/tables/summary.json",
    log:
        f"{LOGS}/tabulate.log",
    conda:
        ENVIRONMENT
    params:
        folders=lambda w, input: sorted({str(Path(path).parent) for path in input["values"]}),
        settings=lambda w, input: sorted({Path(path).stem for path in input["values"]}),
        output=subpath(output.csv, parent=True),
    shell:
        "hamflow tabulate --metrics {params.folders} --setting {params.settings} --output {params.output} > {log} 2>&1"


rule plot_nfe:
    input:
        table=rules.tabulate.output.csv,
        source=sources("report.nfe"),
    output:
        png=report(
            f"{RESULTS}/figures/nfe.png",
            caption="../report/nfe.rst",
            category="Figures",
            labels={"figure": "Distance against NFE", "preset": PRESET},
        ),
        pdf=f"{RESULTS}/figures/nfe.pdf",
    log:
        f"{LOGS}/plot/nfe.log",
    conda:
        ENVIRONMENT
    shell:
        "hamflow plot nfe --table {input.table} --output {output.png} > {log} 2>&1"


rule plot_samples:
    input:
        samples=lambda w: expand(
            f"{RESULTS}/samples/{w.dataset}/{{method}}/seed{SEEDS[0]}/{LARGEST}.npy", method=METHODS
        ),
        manifest="data/{dataset}/dataset.json",
        source=sources("report.samples"),
    output:
        png=report(
            f"{RESULTS}/figures/samples-{{dataset}}.png",
            caption="../report/samples.rst",
            category="Figures",
            labels=lambda w: {
                "figure": f"Samples: {config['datasets'][w.dataset]['label']}",
                "preset": PRESET,
            },
        ),
        pdf=f"{RESULTS}/figures/samples-{{dataset}}.pdf",
    log:
        f"{LOGS}/plot/samples-{{dataset}}.log",
    conda:
        ENVIRONMENT
    params:
        data=subpath(input.manifest, parent=True),
        samples=lambda w, input: str(Path(input.samples[0]).parents[2]),
        setting=LARGEST,
        seed=SEEDS[0],
        labels=label_options(),
    shell:
        "hamflow plot samples --data {params.data} --samples {params.samples} --setting {params.setting}"
        " --seed {params.seed} {params.labels} --output {output.png} > {log} 2>&1"


rule plot_training:
    input:
        checkpoints=over_runs(f"{CHECKPOINTS}/{RUN}/model.safetensors"),
        source=sources("report.training"),
    output:
        png=report(
            f"{RESULTS}/figures/training.png",
            caption="../report/training.rst",
            category="Figures",
            labels={"figure": "Training", "preset": PRESET},
        ),
        pdf=f"{RESULTS}/figures/training.pdf",
    log:
        f"{LOGS}/plot/training.log",
    conda:
        ENVIRONMENT
    params:
        checkpoints=lambda w, input: str(Path(input.checkpoints[0]).parents[3]),
        datasets=DATASETS,
        seeds=SEEDS,
        labels=label_options(),
    shell:
        "hamflow plot training --checkpoints {params.checkpoints} --dataset {params.datasets} --seed {params.seeds} {params.labels} --output {output.png} > {log} 2>&1"


rule plot_phase_space:
    input:
        source=sources(
            "studies.phase_space",
            "flows",
            "sampling.solvers",
            using=("diffusion", "flow_matching", "oscillation"),
        ),
    output:
        png=report(
            f"{RESULTS}/figures/phase-space.png",
            caption="../report/phase-space.rst",
            category="Figures",
            labels={"figure": "Phase space", "preset": PRESET},
        ),
        pdf=f"{RESULTS}/figures/phase-space.pdf",
    log:
        f"{LOGS}/plot/phase-space.log",
    conda:
        ENVIRONMENT
    shell:
        "hamflow plot phase-space --output {output.png} > {log} 2>&1"


rule plot_reflection:
    input:
        source=sources(
            "studies.reflection", "flows", "sampling.solvers", "sampling.noise", using=("reflection",)
        ),
    output:
        png=report(
            f"{RESULTS}/figures/reflection.png",
            caption="../report/reflection.rst",
            category="Figures",
            labels={"figure": "Reflection", "preset": PRESET},
        ),
        pdf=f"{RESULTS}/figures/reflection.pdf",
    log:
        f"{LOGS}/plot/reflection.log",
    conda:
        ENVIRONMENT
    shell:
        "hamflow plot reflection --output {output.png} > {log} 2>&1"
