"""What is reasoned over: policy sets, their loader and their rendering into prompt text."""

from policies.errors import AidsafeError, FieldError, Finding, InputError, Loc, Problem, YamlError
from policies.loader import (
    YamlFiles,
    check_policy_set,
    load_policy_set,
    shipped_policy_sets,
)
from policies.render import render_policy, render_policy_set
from policies.types import Overlap, Policy, PolicySet, ResponseGuide, Rule
from policies.yaml_model import Check, YamlModel
from policies.yaml_source import load_yaml, parse_yaml_text, read_yaml_text

__all__ = [
    "AidsafeError",
    "Check",
    "FieldError",
    "Finding",
    "InputError",
    "Loc",
    "Overlap",
    "Policy",
    "PolicySet",
    "Problem",
    "ResponseGuide",
    "Rule",
    "YamlError",
    "YamlFiles",
    "YamlModel",
    "check_policy_set",
    "load_policy_set",
    "load_yaml",
    "parse_yaml_text",
    "read_yaml_text",
    "render_policy",
    "render_policy_set",
    "shipped_policy_sets",
]
