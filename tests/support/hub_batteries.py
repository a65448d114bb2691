"""Stand-ins for the libraries that fetch data sets from the hub; they note how they are called."""

HUB_LIBRARIES = {
    "datasets.py": """
calls = []

def get_dataset_config_names(path, *, revision, token):
    calls.append((path, revision, token))
    return ["tur", "kaz"]

def load_dataset(path, name, *, revision, token):
    calls.append((path, name, revision, token))
    rows = [{"sen": f"{name} iyi {n}", "wrong_sen": f"{name} kötü {n}", "phenomenon": "SV-#"} for n in (1, 2)]
    return {"train": rows[:1], "test": rows[1:]}
""",
    "huggingface_hub.py": """
import os

class Info:
    sha = "abc123"
    tags = ["language:tr", "license:cc-by-4.0"]

def dataset_info(repo_id, *, token):
    if token == "gone" or os.environ.get("HF_HUB_OFFLINE"):
        raise ConnectionError("no route")
    return Info()
""",
}
