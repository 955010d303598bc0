"""`python -m api`: the control plane."""

from api.main import run

if __name__ == "__main__":
    run()
