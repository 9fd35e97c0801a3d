"""Writes docs/spec.md from the spec's own classes: `python -m traind.spec_doc docs/spec.md`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from traind import spec

INTRO = """\
# The job spec

<!-- Written by `python -m traind.spec_doc docs/spec.md`; a test compares. Change traind/spec.py instead. -->

A job is a JSON document (the command line also takes YAML). `dataset`, `model` and `optimizer` are required, each with
its `name`; everything else has a default, and the defaults of the optimizers are torch's. Unknown fields, wrong types
and numbers that are not finite are refused, with the JSON pointer of the field. A spec that cannot run is also refused:
shapes that do not fit, a parameter pattern that matches nothing, a batch larger than the data, hyperparameters that
torch refuses.

```yaml
dataset: { name: digits }
model: { name: mlp, hidden: [256, 128], dropout: 0.1 }
optimizer:
  name: sgd
  lr: 0.1
  momentum: 0.9
  nesterov: true
  weight_decay: 5e-4
  param_groups: [{ params: "*.bias", weight_decay: 0 }]
schedule: { name: cosine, warmup_steps: 100 }
training: { epochs: 30, batch_size: 64, early_stopping: { patience: 5 } }
```

A parameter belongs to the first entry of `param_groups` whose pattern matches its name; if none matches, the
optimizer's own options apply. `traind get JOB -o json` shows the spec with all defaults. Parameters are named as in
torch's `nn.Sequential`: `1.weight`, `1.bias`, ...
"""

SECTIONS: dict[str, list[type[spec.Part]]] = {
    "dataset": [spec.Digits, spec.FashionMnist, spec.SyntheticClassification, spec.SyntheticRegression],
    "model": [spec.Linear, spec.Mlp, spec.Cnn, spec.Sequential],
    "layers of a sequential model": [
        spec.LinearLayer,
        spec.Conv2dLayer,
        spec.MaxPool2dLayer,
        spec.AvgPool2dLayer,
        spec.BatchNorm1dLayer,
        spec.BatchNorm2dLayer,
        spec.LayerNormLayer,
        spec.FlattenLayer,
        spec.DropoutLayer,
        spec.ActivationLayer,
    ],
    "optimizer": [spec.Sgd, spec.Adam],
    "entries of param_groups": [spec.SgdGroup, spec.AdamGroup],
    "schedule": [spec.Constant, spec.LinearDecay, spec.Cosine, spec.StepDecay],
    "training": [spec.Training, spec.EarlyStopping, spec.DivergenceRule],
    "checkpoints": [spec.CheckpointRule],
    "resources": [spec.Resources],
    "the whole": [spec.JobSpec],
}

METRICS = """\
## Metrics

A job records these metrics. The keys `lr` and `optimizer/...` are for the default param group; they end in `/1` for the
first entry of `param_groups`, in `/2` for the second and so on: `lr/1`, `optimizer/update_ratio/1`.

| key | recorded | value |
|---|---|---|
| `train/loss` | every `log_every` steps | Mean over these steps. |
| `train/accuracy` | every `log_every` steps | Mean over the samples of these steps; classes only. |
| `grad_norm` | every `log_every` steps, with `grad_clip_norm` | L2 norm of the whole gradient before clipping, mean \
over these steps. |
| `lr` | every `log_every` steps | Learning rate of the last of these steps. |
| `val/loss` | every evaluation | Mean over the validation samples. |
| `val/accuracy` | every evaluation | Accuracy over the validation samples; classes only. |
| `optimizer/grad_norm` | every `telemetry_every` steps | L2 norm of the group's gradients in that step, before \
clipping and without weight decay. |
| `optimizer/update_norm` | every `telemetry_every` steps | L2 norm of the step's change of the group's parameters, \
including weight decay. |
| `optimizer/update_ratio` | every `telemetry_every` steps | The update norm divided by the L2 norm of the parameters \
before the step; about 1e-3 is usual. NaN if all parameters were 0. |
| `optimizer/rate_p05`, `optimizer/rate_p50`, `optimizer/rate_p95` | every `telemetry_every` steps, Adam | Quantiles \
of the effective rate lr / (1 - beta1^t) / (sqrt(v) / sqrt(1 - beta2^t) + eps), by which Adam multiplies its first \
moment, over an even sample of the group's elements; with `amsgrad`, v is the largest so far. |
"""


def document() -> str:
    """The page's text."""
    parts = [INTRO]
    for title, classes in SECTIONS.items():
        parts.append(f"## {title[0].upper()}{title[1:]}\n")
        parts += [_part(cls) for cls in classes]
    parts.append(METRICS)
    return "\n".join(parts)


def _part(cls: type[spec.Part]) -> str:
    schema = cls.model_json_schema()
    fields = dict(schema["properties"])
    tag = next((key for key in ("name", "type") if "const" in fields.get(key, {}) or "enum" in fields.get(key, {})), "")
    marked = fields.pop(tag, {})
    heading = " or ".join(_code(v) for v in marked.get("enum", [marked.get("const")])) if tag else cls.__name__
    lines = [f"### {heading}", "", " ".join((cls.__doc__ or "").split()), ""]
    if fields:
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        default = "required" if name in schema.get("required", []) else _default(cls, name)
        meaning = " ".join(field.get("description", "").split())
        lines.append(f"| `{name}` | {_type(field, schema.get('$defs', {}))} | {default} | {meaning} |")
    return "\n".join([*lines, *([""] if fields else [])])


def _default(cls: type[spec.Part], name: str) -> str:
    default = cls.model_fields[name].get_default(call_default_factory=True, validated_data={})
    if isinstance(default, spec.Part):
        given = default.model_dump(exclude_defaults=True, include={"name"}) or "all defaults"
        return _code(given) if isinstance(given, dict) else given
    return "" if default is None else _code(default)


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _type(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    match field:
        case {"$ref": ref}:
            target = definitions[ref.rsplit("/", 1)[1]]
            return _type(target, definitions) if "enum" in target else "object"
        case {"const": value}:
            return _code(value)
        case {"enum": values}:
            return ", ".join(map(_code, values))
        case {"anyOf": choices}:
            return " or ".join(_type(c, definitions) for c in choices if c.get("type") != "null")
        case {"discriminator": _}:
            return "object, see above"
        case {"type": "array", "prefixItems": items}:
            return f"list of {len(items)}: {_type(items[0], definitions)}"
        case {"type": "array", "items": item}:
            return f"list of {_type(item, definitions)}"
        case {"type": "object"}:
            return "object of text"
    names = {"string": "text", "boolean": "bool"}
    return " ".join([names.get(field["type"], field["type"]), *_limits(field)])


def _limits(field: dict[str, Any]) -> list[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    shown = {key: sign for key, sign in signs.items() if key in field and abs(field[key]) < spec.INT32_MAX}
    return [f"{sign} {field[key]:,}" for key, sign in shown.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.parse_args().path.write_text(document())


if __name__ == "__main__":
    main()
