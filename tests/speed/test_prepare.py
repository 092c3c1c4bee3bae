"""What reading a large COCO instances file costs, against pycocotools: seconds and memory.

Run with ``pytest tests/speed``: the figures come as one table at the end. Nothing fails on a clock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

MEGABYTES = int(os.environ.get("CML_BENCH_SPEED_MB", "120"))
PROGRAM = """
import sys, time
from pathlib import Path
{imports}

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])

Path("/proc/self/clear_refs").write_text("5")  # Forget the peak of the imports.
before, start = kilobytes("VmRSS"), time.process_time()
read = {call}
seconds = time.process_time() - start
print(seconds, (kilobytes("VmHWM") - before) / 1000)
"""
READERS = {
    "pycocotools": PROGRAM.format(imports="from pycocotools.coco import COCO", call="COCO(sys.argv[1])"),
    "cml_bench": PROGRAM.format(
        imports="from cml_bench.data.coco_json import read_instances", call="read_instances(Path(sys.argv[1]))"
    ),
}


def write(path: Path, megabytes: int) -> None:
    """Write a file with the sections, keys and bytes an annotation of COCO's train2017 file."""
    rng = np.random.default_rng(0)
    annotations = megabytes * 2000
    image_ids = rng.permutation(600_000)[: annotations // 7].tolist()
    outlines = []
    for points in np.clip(rng.lognormal(2.83, 0.75, 2000), 3, 300).astype(int):
        outlines.append(json.dumps([np.round(rng.uniform(0, 640, 2 * points), 2).tolist()], separators=(",", ":")))
    crowd = json.dumps({"counts": rng.integers(1, 4000, 300).tolist(), "size": [480, 640]})
    images = (
        f'{{"license": 3,"file_name": "{i:012d}.jpg","coco_url": "http://images.cocodataset.org/train2017/{i:012d}.jpg",'
        '"height": 480,"width": 640,"date_captured": "2013-11-14 16:28:13",'
        f'"flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg","id": {i}}}'
        for i in image_ids
    )
    of_image = rng.choice(image_ids, annotations).tolist()
    outline = rng.integers(0, len(outlines), annotations).tolist()
    boxes = np.round(rng.uniform(1, 400, (annotations, 4)), 2).tolist()
    objects = (
        f'{{"segmentation": {outlines[outline[k]] if k % 85 else crowd},"area": {box[2] * box[3] * 0.61},"iscrowd": '
        f'{int(k % 85 == 0)},"image_id": {of_image[k]},"bbox": {box},"category_id": {k % 80 + 1},"id": {k}}}'
        for k, box in enumerate(boxes)
    )
    categories = [{"supercategory": "thing", "id": i, "name": f"thing {i}"} for i in range(1, 81)]
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"year": 2017},"licenses": [],"images": [')
        file.write(",".join(images))
        file.write('],"annotations": [')
        file.write(",".join(objects))
        file.write(f'],"categories": {json.dumps(categories)}}}')


def cost(reader: str, path: Path) -> tuple[float, float]:
    """Processor seconds, and megabytes above what the interpreter and the imports take, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", READERS[reader], str(path)], capture_output=True, text=True, check=True
    )
    seconds, megabytes = done.stdout.splitlines()[-1].split()
    return float(seconds), float(megabytes)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_reading_an_instances_file(benchmark: Any, measured: Any, tmp_path: Path) -> None:
    """One reading with each in turn, on the same file and the same machine at the same time of day."""
    path = tmp_path / "instances_train2017.json"
    write(path, MEGABYTES)
    faster, leaner, ours = [], [], []

    def pair() -> None:
        seconds, megabytes = cost("pycocotools", path)
        ours.append(cost("cml_bench", path))
        faster.append(seconds / ours[-1][0])
        leaner.append(megabytes / ours[-1][1])

    benchmark.pedantic(pair, rounds=3)
    size = path.stat().st_size / 1e6
    seconds, megabytes = (median(column) for column in zip(*ours, strict=True))
    what = f"reading {size:.0f} MB of COCO instances"
    measured(what, seconds, "s")
    measured(what, megabytes, "MB")
    measured(what, median(faster), "times as fast as pycocotools", ">= 3")
    measured(what, median(leaner), "times as lean as pycocotools", ">= 5")
