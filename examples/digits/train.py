"""Train the digits network, so that there is something to compress: about ten seconds."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from net import build
from safetensors.torch import save_file
from torch.nn import functional as F

from lilliput.data.sources import load_data
from lilliput.preprocessing import Preprocessing
from lilliput.tasks import task_of


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=Path("runs/demo-network"))
    arguments.add_argument("--epochs", type=int, default=12)
    settings = arguments.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)  # for a network this small a second thread only costs
    task = task_of("classification")
    data = load_data("digits", task=task)
    preprocessing = Preprocessing(channels=1)
    network = build()
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True)
    steps = settings.epochs * (len(data.train) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps + 1)
    for epoch in range(settings.epochs):
        rng = np.random.default_rng(epoch)
        for batch in task.training_batches(data.train, preprocessing, 64, rng):
            loss = F.cross_entropy(
                network(torch.from_numpy(batch.inputs[0])), torch.as_tensor(batch.targets).long()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    settings.out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), settings.out / "net.safetensors")
    print(f"trained on {len(data.train)} digits, last loss {loss.item():.4f}: {settings.out}")


if __name__ == "__main__":
    main()
