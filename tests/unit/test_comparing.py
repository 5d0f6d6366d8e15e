from flows.comparing import document_changes, metric_changes


def test_a_page_that_only_got_another_name_was_renamed() -> None:
    old = {"a": "1", "b": "2", "c": "3"}
    new = {"a": "1", "beta": "2", "c": "4", "d": "5"}
    assert document_changes(old, new) == {"changed": ["c"], "added": ["d"], "removed": [], "renamed": {"b": "beta"}}


def test_a_copy_of_a_page_that_stays_was_added() -> None:
    assert document_changes({"a": "1"}, {"a": "1", "copy": "1"}) == {
        "changed": [],
        "added": ["copy"],
        "removed": [],
        "renamed": {},
    }


def test_two_equal_pages_that_merge_are_one_renamed_and_one_removed() -> None:
    found = document_changes({"a": "1", "b": "1"}, {"c": "1"})
    assert found["added"] == [] and len(found["renamed"]) == 1 and len(found["removed"]) == 1
    assert set(found["renamed"]) | set(found["removed"]) == {"a", "b"}


def test_a_page_that_split_into_two_equal_ones_accounts_for_both() -> None:
    found = document_changes({"a": "1"}, {"b": "1", "c": "1"})
    assert sorted([*found["renamed"].values(), *found["added"]]) == ["b", "c"]


def test_nothing_changed_is_nothing() -> None:
    assert document_changes({"a": "1"}, {"a": "1"}) == {"changed": [], "added": [], "removed": [], "renamed": {}}


def test_only_metrics_that_both_have_are_compared() -> None:
    old = {"arms": {"rag": {"metrics": {"fact": {"mean": 0.5}, "old": {"mean": 1}}}, "lora": {"metrics": {}}}}
    new = {"arms": {"rag": {"metrics": {"fact": {"mean": 0.61239}, "new": {"mean": 1}}}}}
    assert metric_changes(old, new) == {"rag": {"fact": [0.5, 0.6124]}}
