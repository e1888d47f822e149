"""Exemplar pools: which exemplar a new one replaces, and the seeds of a pool.

The tables were worked out by hand; `a.7` is the belief "a" with the score 0.7.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml

from agents.pairs.state import Exemplar
from orchestration.pairs.exemplars import SEEDS, Seeds, Strategy, load_seeds, updated
from policies import InputError, YamlError, load_policy_set

Table = list[tuple[str, str]]
"""Steps: the new exemplar, and the pool after it. Each starts from the pool of the one before."""


def exemplar(text: str, led_to: str = "It went wrong.") -> Exemplar:
    belief, digit = text.split(".")
    return Exemplar(policy="privacy", belief=belief, led_to=led_to, score=float(f"0.{digit}"))


def pool_of(text: str) -> tuple[Exemplar, ...]:
    return tuple(exemplar(one) for one in text.split())


def shown(pool: tuple[Exemplar, ...]) -> str:
    return " ".join(f"{one.belief}{one.score:.1f}".replace("0.", ".") for one in pool)


def walk(table: Table, strategy: Strategy, size: int) -> None:
    pool: tuple[Exemplar, ...] = ()
    for step, (new, expected) in enumerate(table, start=1):
        pool = updated(pool, exemplar(new), strategy, size)
        assert shown(pool) == expected, f"step {step}: {new}"


# Strategies

FIFO: Table = [
    ("a.7", "a.7"),
    ("b.6", "a.7 b.6"),
    ("A.5", "a.7 b.6"),  # there already, with a higher score
    ("c.5", "a.7 b.6 c.5"),
    ("d.1", "b.6 c.5 d.1"),  # the score does not matter
    ("e.9", "c.5 d.1 e.9"),
    ("d.8", "c.5 d.8 e.9"),  # there already, with a lower score
    ("d.8", "c.5 d.8 e.9"),
    ("c.2", "c.5 d.8 e.9"),
    ("f.0", "d.8 e.9 f.0"),
    ("d.9", "d.9 e.9 f.0"),  # a higher score does not change its age
    ("g.3", "e.9 f.0 g.3"),
    ("d.4", "f.0 g.3 d.4"),  # a removed belief may return
    ("h.4", "g.3 d.4 h.4"),
]

LIFO: Table = [
    ("a.7", "a.7"),
    ("b.6", "a.7 b.6"),
    ("B.8", "a.7 b.8"),  # there already, with a lower score
    ("c.5", "a.7 b.8 c.5"),
    ("d.1", "a.7 b.8 d.1"),  # the score does not matter
    ("e.9", "a.7 b.8 e.9"),
    ("a.9", "a.9 b.8 e.9"),
    ("e.4", "a.9 b.8 e.9"),  # there already, with a higher score
    ("f.2", "a.9 b.8 f.2"),
    ("f.3", "a.9 b.8 f.3"),
    ("g.3", "a.9 b.8 g.3"),
    ("c.6", "a.9 b.8 c.6"),  # a removed belief may return
    ("b.1", "a.9 b.8 c.6"),
    ("h.0", "a.9 b.8 h.0"),
]

SCORING: Table = [
    ("a.7", "a.7"),
    ("b.5", "a.7 b.5"),
    ("c.9", "a.7 b.5 c.9"),
    ("a.8", "a.8 b.5 c.9"),  # there already, with a lower score
    ("d.1", "a.8 b.5 c.9 d.1"),  # there is room, whatever the score
    ("e.0", "a.8 b.5 c.9 d.1"),  # lower than the lowest
    ("f.1", "a.8 b.5 c.9 f.1"),  # as high as the lowest
    ("g.5", "a.8 b.5 c.9 g.5"),
    ("h.5", "a.8 h.5 c.9 g.5"),  # the first of the two lowest
    ("i.4", "a.8 h.5 c.9 g.5"),
    ("g.7", "a.8 h.5 c.9 g.7"),
    ("g.6", "a.8 h.5 c.9 g.7"),  # there already, with a higher score
    ("h.8", "a.8 h.8 c.9 g.7"),
    ("j.7", "a.8 h.8 c.9 j.7"),
    ("k.8", "a.8 h.8 c.9 k.8"),
    ("l.8", "l.8 h.8 c.9 k.8"),  # the first of the three lowest
    ("m.9", "m.9 h.8 c.9 k.8"),
    ("n.9", "m.9 n.9 c.9 k.8"),
    ("p.7", "m.9 n.9 c.9 k.8"),
]

# Beside each step: the objectives of the pool as it is, and with the new one in the 1st, 2nd and
# 3rd place. They are mean(score) + 0.5 * (1 - mean(similarity)). Two words of four letters have the
# similarity (letters that both have in this order) / 4: aaaa and aabb 2/4, aabb and abbb 3/4.
SCORING_DIVERSE: Table = [
    ("aaaa.6", "aaaa.6"),
    ("aabb.6", "aaaa.6 aabb.6"),
    ("AABB.5", "aaaa.6 aabb.6"),  # there already, with a higher score
    ("abbb.6", "aaaa.6 aabb.6 abbb.6"),  # there is room, even for a similar one
    # Is: .6 + .5(1 - (.5 + .25 + .75)/3) = .85.      1st: .6 + .5(1 - (.5 + .75 + .75)/3) = .767
    # 2nd: .6 + .5(1 - (0 + .25 + .75)/3) = .933      3rd: .6 + .5(1 - (.5 + 0 + .5)/3) = .933
    ("bbbb.6", "aaaa.6 bbbb.6 abbb.6"),  # the first of the two best places
    # Is: .933.                                       1st: .6 + .5(1 - (0 + 0 + .75)/3) = .975
    # 2nd: .6 + .5(1 - (0 + .25 + 0)/3) = 1.058       3rd: .6 + .5(1 - 0) = 1.1
    ("cccc.6", "aaaa.6 bbbb.6 cccc.6"),
    # Is: 1.1.                                        1st: 2/3 + .5(1 - (0 + .5 + 0)/3) = 1.083
    # 2nd: 2/3 + .5(1 - (.5 + 0 + .5)/3) = 1          3rd: 2/3 + .5(1 - (0 + .5 + 0)/3) = 1.083
    ("aacc.8", "aaaa.6 bbbb.6 cccc.6"),  # the highest score, but too similar
    # As before, with 2.1/3 for 2/3. Is: 1.1.         1st: 1.117     2nd: 1.033     3rd: 1.117
    ("aacc.9", "aacc.9 bbbb.6 cccc.6"),
    # Is: 1.117.                                      1st: .6 + .5 = 1.1
    # 2nd: .7 + .5(1 - (0 + .5 + 0)/3) = 1.117        3rd: .7 + .5 = 1.2
    ("dddd.6", "aacc.9 bbbb.6 dddd.6"),
    # Is: 1.2.             1st: .6 + .5 = 1.1         2nd: .7 + .5 = 1.2     3rd: .7 + .5 = 1.2
    ("eeee.6", "aacc.9 eeee.6 dddd.6"),  # as high as that of the pool
    # Is: 1.2.             1st: 1.7/3 + .5 = 1.067    2nd and 3rd: 2/3 + .5 = 1.167
    ("ffff.5", "aacc.9 eeee.6 dddd.6"),
    ("dddd.7", "aacc.9 eeee.6 dddd.7"),  # there already, with a lower score
    # Is: 2.2/3 + .5 = 1.233.                         1st: 2.2/3 + .5(1 - (.5 + .5 + 0)/3) = 1.067
    # 2nd: 2.5/3 + .5(1 - (0 + 0 + .5)/3) = 1.25      3rd: 2.4/3 + .5(1 - (0 + 0 + .5)/3) = 1.217
    ("ddee.9", "aacc.9 ddee.9 dddd.7"),
    # Is: 1.25.                                       1st: 2/3 + .5(1 - (0 + 0 + .5)/3) = 1.083
    # 2nd: 2/3 + .5 = 1.167                           3rd: 2.2/3 + .5 = 1.233
    ("ffff.4", "aacc.9 ddee.9 dddd.7"),
    # Is: 1.25.                                       1st: 2.1/3 + .5(1 - (0 + 0 + .5)/3) = 1.117
    # 2nd: 2.1/3 + .5 = 1.2                           3rd: 2.3/3 + .5 = 1.267
    ("ffff.5", "aacc.9 ddee.9 ffff.5"),  # the lowest score, but different from the others
    ("FFFF.5", "aacc.9 ddee.9 ffff.5"),
]


def test_fifo_removes_the_oldest() -> None:
    walk(FIFO, "fifo", 3)


def test_lifo_removes_the_newest_and_keeps_the_seeds() -> None:
    walk(LIFO, "lifo", 3)


def test_scoring_replaces_the_lowest_scored_if_the_new_one_scores_at_least_as_high() -> None:
    walk(SCORING, "scoring", 4)


def test_scoring_diverse_maximizes_scores_and_difference() -> None:
    walk(SCORING_DIVERSE, "scoring_diverse", 3)


@pytest.mark.parametrize(
    ("diversity", "expected"),
    [
        # The pool is .4 + diversity. In the 1st place, .65 + diversity / 2; in the 2nd, .45 + the
        # same.
        (0.0, "aabb.7 bbbb.6"),
        (0.4, "aabb.7 bbbb.6"),
        (0.6, "aaaa.2 bbbb.6"),
    ],
)
def test_diversity_weighs_difference_against_scores(diversity: float, expected: str) -> None:
    pool = pool_of("aaaa.2 bbbb.6")
    assert shown(updated(pool, exemplar("aabb.7"), "scoring_diverse", 2, diversity)) == expected


def test_equal_objectives_are_equal_despite_rounding() -> None:
    # .65 + .25 against .4 + .5: floats have 0.8999999999999999 against 0.9.
    pool = pool_of("aaaa.2 bbbb.6")
    assert shown(updated(pool, exemplar("aabb.7"), "scoring_diverse", 2)) == "aabb.7 bbbb.6"
    # 1st (.3 + .2 + .1)/3, 3rd (.1 + .2 + .3)/3: floats have 0.6 against 0.6000000000000001.
    pool = pool_of("aaaa.1 bbbb.2 cccc.1")
    after = updated(pool, exemplar("dddd.3"), "scoring_diverse", 3)
    assert shown(after) == "dddd.3 bbbb.2 cccc.1"


@pytest.mark.parametrize(
    ("new", "expected"), [("b.6", "a.7"), ("b.7", "b.7"), ("A.9", "a.9"), ("aa.8", "aa.8")]
)
@pytest.mark.parametrize("strategy", ["scoring", "scoring_diverse"])
def test_in_a_pool_of_one_scores_alone_decide(strategy: Strategy, new: str, expected: str) -> None:
    assert shown(updated(pool_of("a.7"), exemplar(new), strategy, 1)) == expected


def test_the_same_words_in_another_order_are_similar_but_a_different_belief() -> None:
    def made(belief: str, score: float) -> Exemplar:
        return Exemplar(policy="p", belief=belief, led_to="x", score=score)

    pool, new = (made("zzzz", 0.1), made("all is WELL", 0.9)), made("well is all", 0.9)
    # Is: .5 + .5.    1st: .9 + .5(1 - 1), beside its like.    2nd: .5 + .5, in place of its like.
    assert updated(pool, new, "scoring_diverse", 2) == (pool[0], new)
    assert updated(pool, new, "scoring", 2) == (new, pool[1])


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_the_same_belief_but_for_case_and_white_space_takes_over_the_higher_score(
    strategy: Strategy,
) -> None:
    pool = (
        Exemplar(policy="p", belief="Die Straße  ist frei.", led_to="before", score=0.5),
        Exemplar(policy="p", belief="Other.", led_to="other", score=0.9),
    )
    new = Exemplar(policy="q", belief=" die STRASSE\nist frei. ", led_to="after", score=0.6)
    better = Exemplar(policy="p", belief="Die Straße  ist frei.", led_to="after", score=0.6)
    for size in (2, 3):
        assert updated(pool, new, strategy, size) == (better, pool[1])
    for score in (0.5, 0.4):
        lower = new.model_copy(update={"score": score})
        assert updated(pool, lower, strategy, 2) == pool
    assert pool[0].score == 0.5, "what was given is left as it was"


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_a_pool_with_room_takes_any_exemplar(strategy: Strategy) -> None:
    assert shown(updated((), exemplar("a.0"), strategy, 1)) == "a.0"
    pool = list(pool_of("aaaa.9 bbbb.9"))
    assert shown(updated(pool, exemplar("aaab.0"), strategy, 3)) == "aaaa.9 bbbb.9 aaab.0"
    assert shown(tuple(pool)) == "aaaa.9 bbbb.9"


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_a_pool_that_is_too_long_is_rejected(strategy: Strategy) -> None:
    with pytest.raises(ValueError, match=r"at most 1 exemplars \(got 2\)"):
        updated(pool_of("a.5 b.5"), exemplar("a.6"), strategy, 1)
    with pytest.raises(ValueError, match=r"size must be >= 1 \(got 0\)"):
        updated((), exemplar("a.6"), strategy, 0)


# Seeds

HEAD = "name: mine\ndescription: Mine.\n"
SEED = "- belief: All is well.\n  led_to: It was not.\n  score: 0.5\n"


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def seeds(name: str = "mine", **more: float) -> Seeds:
    def made(belief: str) -> dict[str, object]:
        return {"belief": belief, "led_to": f"{belief} led.", "score": more.get(belief, 0.5)}

    return Seeds.model_validate(
        {
            "name": name,
            "description": "Mine.",
            "any": [made("any_1"), made("any_2")],
            "policies": {"privacy": [made("p_1"), made("p_2"), made("p_3")]},
        }
    )


def test_the_shipped_seeds_have_four_for_every_policy_of_the_shipped_sets() -> None:
    assert list(SEEDS.by_name()) == ["default"]
    shipped = load_seeds("default")
    assert shipped.name == "default"
    policies = {"over_refusal"}
    for name in ("aidsafe", "mlcommons"):
        policies |= set(load_policy_set(name).policy_ids)
    assert set(shipped.policies) == policies
    assert {len(own) for own in (shipped.any, *shipped.policies.values())} == {4}


def test_the_shipped_beliefs_are_distinct_and_short() -> None:
    shipped = load_seeds("default")
    every = [seed for own in (shipped.any, *shipped.policies.values()) for seed in own]
    assert len({seed.belief.casefold() for seed in every}) == len(every)
    for seed in every:
        assert len(seed.belief) <= 120, seed.belief
        assert 0.5 <= seed.score <= 0.8, seed.belief


def test_a_policy_begins_with_its_own_seeds() -> None:
    assert seeds().of("privacy", 3) == tuple(
        Exemplar(policy="privacy", belief=belief, led_to=f"{belief} led.", score=0.5)
        for belief in ("p_1", "p_2", "p_3")
    )


def test_a_policy_without_seeds_begins_with_those_for_any() -> None:
    pool = seeds().of("my_policy", 4)
    assert [(one.policy, one.belief) for one in pool] == [
        ("my_policy", "any_1"),
        ("my_policy", "any_2"),
    ]


@pytest.mark.parametrize("size", [1, 2])
def test_a_small_pool_takes_the_first_seeds(size: int) -> None:
    for policy, first in (("privacy", ["p_1", "p_2"]), ("my_policy", ["any_1", "any_2"])):
        assert [one.belief for one in seeds().of(policy, size)] == first[:size]


def test_any_change_of_seeds_changes_their_hash() -> None:
    made = [seeds(), seeds(p_1=0.6), seeds(any_1=0.6), seeds("yours")]
    assert len({each.hash for each in made}) == 4
    assert seeds().hash == seeds().hash
    assert seeds().hash.startswith("sha256:")


def test_seeds_are_read_by_path(tmp_path: Path) -> None:
    made = seeds()
    path = write(tmp_path, yaml.safe_dump(made.model_dump(mode="json")))
    read = load_seeds(path)
    assert read == made
    assert read.hash == made.hash


def test_seeds_need_no_policies_and_lines_may_wrap(tmp_path: Path) -> None:
    text = (
        HEAD + "any:\n- belief: |\n    All is\n    well.\n  led_to: ' It was not. '\n  score: 1\n"
    )
    (only,) = load_seeds(write(tmp_path, text)).of("privacy", 4)
    assert (only.belief, only.led_to, only.score) == ("All is well.", "It was not.", 1)


ANY = "any:\n" + SEED


def any_with(old: str, new: str) -> str:
    return ANY.replace(old, new)


@pytest.mark.parametrize(
    ("text", "line", "cause", "remedy"),
    [
        ("any: []\n", 3, '"any" has 0 items and needs at least 1', "Add what is missing"),
        ("policies: {}\n", 1, 'The key "any" is missing', 'Add a line "any: ..."'),
        (ANY + "policy: {}\n", 7, '"policy" is not known here', 'Did you mean "policies"?'),
        (ANY + "policies:\n  privacy: []\n", 8, '"privacy" has 0 items', "Add what is missing"),
        (
            ANY + "policies:\n  My own:\n  " + SEED.replace("\n ", "\n   "),
            8,
            '"My own" is not a valid policy id',
            "Use lower-case letters",
        ),
        (any_with("0.5", "1.5"), 6, '"score" must be at most 1 (got 1.5)', "Change the number"),
        (any_with("0.5", "-1"), 6, '"score" must be at least 0 (got -1)', "Change the number"),
        (any_with("0.5", ".nan"), 6, '"score" must be at most 1 (got nan)', "Change the number"),
        (any_with("0.5", "'0.5'"), 6, '"score" must be a number', "without quotes"),
        (any_with("0.5", "yes"), 6, "yes is read as a yes/no value", "Write a number"),
        (any_with("All is well.", "' '"), 4, '"belief" is empty', "Write its text"),
        (any_with("All is well.", "x" * 2001), 4, "2001 characters, of at most 2000", "Shorten"),
        (any_with("It was not.", "x" * 401), 5, "401 characters, of at most 400", "Shorten it"),
        (ANY + "  id: a\n", 7, '"id" is not known here', "Known here: belief, led_to, score"),
        ("any: [\n", 4, "This is not valid YAML", "Check the indentation"),
    ],
)
def test_invalid_seeds_are_rejected_with_line_and_remedy(
    tmp_path: Path, text: str, line: int, cause: str, remedy: str
) -> None:
    path = write(tmp_path, HEAD + text)
    with pytest.raises(YamlError) as caught:
        load_seeds(path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == (path, line)
    assert cause in problem.cause
    assert remedy in problem.remedy


def test_all_problems_of_seeds_are_reported_together(tmp_path: Path) -> None:
    text = HEAD + any_with("led_to", "lead_to").replace("0.5", "2") + "speed: high\n"
    with pytest.raises(YamlError) as caught:
        load_seeds(write(tmp_path, text))
    assert [problem.line for problem in caught.value.problems] == [4, 5, 6, 7]


def test_an_unknown_name_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"There is no seeds file 'defualt'.*default"):
        load_seeds("defualt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.yaml: There is no such file"):
        load_seeds(str(tmp_path / "nothing.yaml"))
