# Data sets, shared by all presets. The arrays lie beside the manifest, which holds their sha256.


rule prepare:
    input:
        unpack(made_of("prepare")),
    output:  # updated: what was prepared stays, also where preparing it again fails
        manifest=update(PRESET.manifest("{dataset}")),
        made=update(PRESET.data("{dataset}") / paths.MADE),
    log:
        "logs/prepare/{dataset}.log",
    conda:
        ENVIRONMENT
    resources:
        preset=PRESET.name,  # no parameter: another preset does not repeat what all share
    params:
        at=at,
        recipe=recipe("prepare"),
    shell:
        job("prepare", "{dataset}", preset="{resources.preset}")
