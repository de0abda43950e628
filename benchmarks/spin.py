"""A competitor: keeps one core busy until its standard input ends, which it does with the process that started it."""
import sys
import threading


def main() -> None:
    listener = threading.Thread(target=sys.stdin.read, daemon=True)
    listener.start()
    print("spinning", flush=True)
    while listener.is_alive():
        for _ in range(10_000):
            pass


if __name__ == "__main__":
    main()
