# Data sets, shared by all presets. The arrays lie beside the manifest, which holds their sha256.


rule prepare:
    input:
        source=sources("verbs.prepare"),
    output:
        manifest=PRESET.manifest("{dataset}"),
    log:
        "logs/prepare/{dataset}.log",
    conda:
        ENVIRONMENT
    resources:
        preset=PRESET.name,  # no parameter: another preset does not repeat what all share
    params:
        at=at,
        spec=spec("dataset"),
        files=lambda w: pipeline.users_files(config["datasets"][w.dataset]["options"].get("path")),
    shell:
        job("prepare", "{dataset}", preset="{resources.preset}")
