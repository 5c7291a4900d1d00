"""Stand-ins for what is not there where tests run."""

import os
import sys
from types import ModuleType, SimpleNamespace

from instructgpt.hygiene.personal import _analyzer
from instructgpt.rewards.base import RewardFunction

SBATCH = """#!/bin/sh
for one in "$@"; do case $one in --*) echo "$one" ;; *) cat "$one" ;; esac; done >> {calls}
echo Submitted batch job $(wc -l < {calls})
"""


class TokenReward(RewardFunction):
    """Tokens of the response, which there are only where something makes them."""

    def raw_scores(self, samples):
        return [float(len(sample.response_tokens)) for sample in samples]


def slurm(programs, monkeypatch):
    """Put Slurm on the path, which runs no job, and return the file that it writes them to.

    Args:
        programs: folder for its programs.
        monkeypatch: takes it from the path again.
    """
    programs.mkdir()
    calls = programs.with_name("calls")
    (programs / "sbatch").write_text(SBATCH.format(calls=calls))
    (programs / "squeue").write_text("#!/bin/sh\nexit 0\n")
    for path in programs.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return calls


def presidio(monkeypatch):
    """Presidio with the interface that is used: it finds one name and one place.

    Args:
        monkeypatch: takes it from the modules again.
    """
    _analyzer.cache_clear()
    spacy, util = ModuleType("spacy"), ModuleType("spacy.util")
    util.is_package = lambda name: name == "en_core_web_lg"
    spacy.util = util

    class Engine:
        def __init__(self, nlp_engine):
            assert nlp_engine == [{"lang_code": "en", "model_name": "en_core_web_lg"}]

        def analyze(self, text, language, entities):
            words = {"PERSON": "Jane Miller", "LOCATION": "12 Long Street"}
            starts = [(text.find(words[one]), words[one]) for one in entities]
            return [SimpleNamespace(start=at, end=at + len(w)) for at, w in starts if at >= 0]

    class Provider:
        def __init__(self, nlp_configuration):
            self.models = nlp_configuration["models"]

        def create_engine(self):
            return self.models

    analyzer, engine = ModuleType("presidio_analyzer"), ModuleType("presidio_analyzer.nlp_engine")
    analyzer.AnalyzerEngine, engine.NlpEngineProvider = Engine, Provider
    for module in (spacy, util, analyzer, engine):
        monkeypatch.setitem(sys.modules, module.__name__, module)
