"""`python -m agent`: the same as `pluperfect agent`."""

from agent.cli import agent

if __name__ == "__main__":
    agent(prog_name="python -m agent")
