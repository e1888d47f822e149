"""What is reasoned over: policy sets, their loader and their rendering into prompt text."""

from policies.errors import AidsafeError, InputError
from policies.loader import check_policy_set, load_policy_set, shipped_policy_sets
from policies.problems import FieldError, Finding, Loc, Problem, YamlError
from policies.render import render_policy, render_policy_set
from policies.types import Overlap, Policy, PolicySet, ResponseGuide, Rule
from policies.yaml_source import Check, load_yaml, parse_yaml_text

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
    "check_policy_set",
    "load_policy_set",
    "load_yaml",
    "parse_yaml_text",
    "render_policy",
    "render_policy_set",
    "shipped_policy_sets",
]
