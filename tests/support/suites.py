"""A test suite in the form of SyntaxGym."""


def _item(number: int, **conditions: tuple[str, str, str]) -> dict[str, object]:
    return {
        "item_number": number,
        "conditions": [
            {
                "condition_name": name,
                "regions": [{"region_number": n, "content": content} for n, content in enumerate(contents, 1)],
            }
            for name, contents in conditions.items()
        ],
    }


SUITE: dict[str, object] = {
    "meta": {"name": "agreement", "metric": "sum", "author": "nobody"},
    "region_meta": {"1": "start", "2": "verb", "3": "end"},
    "predictions": [
        {"type": "formula", "formula": "(2;%good%) < (2;%bad%)"},
        {"type": "formula", "formula": "[(*;%good%) > (*;%bad%)] | (1;%good%) = (1;%bad%)"},
    ],
    "items": [
        _item(1, good=("the sun", "was", " shining"), bad=("the sun", "were", "shining")),
        _item(2, good=("", " on", "the sea"), bad=("", "on ", "the sea")),
    ],
}
