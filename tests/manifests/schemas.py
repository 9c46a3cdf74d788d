"""Schemas of objects whose kinds Kubernetes does not bring: the fields that may be used."""

VERSIONS = ("1.31", "1.34")
"""Of Kubernetes, whose own schemas are those of kubernetes-validate."""

TEXT, TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}
LABELS = {"type": "object", "additionalProperties": TEXT}


def strict(required=(), **properties):
    """The schema of an object that has these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
