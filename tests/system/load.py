"""Requests from several clients, one after the other each, until standard input ends; then how they went.

Runs inside a machine, on the distribution's own Python: load.py URL
"""

import json
import sys
import threading
import time
import urllib.request

CLIENTS = 4
PAUSE = 0.01  # seconds between two requests of one client

ended = threading.Event()
good = [0] * CLIENTS
failed: list[str] = []


def request_all_the_time(number):
    while not ended.is_set():
        try:
            with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
                answer.read()
            good[number] += 1
        except OSError as exc:
            failed.append(f"{time.strftime('%H:%M:%S')} {exc}")
        time.sleep(PAUSE)


threads = [threading.Thread(target=request_all_the_time, args=(n,)) for n in range(CLIENTS)]
for thread in threads:
    thread.start()
sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
print(json.dumps({"good": sum(good), "failed": failed}))
