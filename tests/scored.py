"""What a reward model is asked, and dying in between."""

import os
import signal

from instructgpt.rewards.learned import LearnedReward


class Scored:
    """How many answers each question to a reward model held."""

    def __init__(self, monkeypatch):
        self.calls: list[int] = []
        self.most = 99  # questions; then the process dies
        real = LearnedReward.score

        def score(reward, rows):
            if len(self.calls) == self.most:
                os.kill(os.getpid(), signal.SIGKILL)
            self.calls.append(len(rows))
            return real(reward, rows)

        monkeypatch.setattr(LearnedReward, "score", score)
