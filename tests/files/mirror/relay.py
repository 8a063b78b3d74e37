# Joins two Ethernet devices with a bad wire: each frame is lost, delayed, or overtaken by others.
# Usage: relay.py DEVICE DEVICE LOSS DELAY JITTER (a part of 1, and two times in seconds).
import fcntl, heapq, random, select, socket, struct, sys, time

devices, (loss, delay, jitter) = sys.argv[1:3], map(float, sys.argv[3:6])
random.seed(1)
ends = []
for device in devices:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    end.bind((device, 0))
    end.setblocking(False)
    ends.append(end)
print("joined", flush=True)
waiting = []
count = 0
while True:
    limit = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    for end in select.select(ends, [], [], limit)[0]:
        while True:
            try:
                frame, source = end.recvfrom(65536)
            except BlockingIOError:
                break
            # 4 is PACKET_OUTGOING: a frame that this program has sent.
            if source[2] == 4 or random.random() < loss:
                continue
            count += 1
            due = time.monotonic() + delay + random.uniform(-jitter, jitter)
            heapq.heappush(waiting, (due, count, ends[1 - ends.index(end)], frame))
    while waiting and waiting[0][0] <= time.monotonic():
        _, _, end, frame = heapq.heappop(waiting)
        try:
            end.send(frame)
        except OSError:
            pass  # Lost as well: the queue of the device is full, or the frame too long.
