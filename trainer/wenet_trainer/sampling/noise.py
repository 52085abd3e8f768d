"""How much each weight-enabled layer minds being disturbed: a trainable noise on its output.

Every layer's output is multiplied by 1 + sigma·e with e drawn from a normal distribution, per image
and channel. The sigmas are learned while the weights stand still: the answers shall stay right and the
noise shall be large. A layer that ends with much noise can be disturbed, so it is the first to lose
connections; one that ends with little is left dense for longer.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active, weight_enabled

STEPS = 40
BATCH = 128
START = 0.2  # a standard deviation that hurts a little
WANT_NOISE = 0.05  # weight of the noise's logarithm against the loss, per layer


def learn_noise(net: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
    """The noise that every weight-enabled layer of the full network bears.

    Args:
        net: the supernet; its weights, statistics and training flag are left as they were.
        inputs: (N, C, H, W) validation images; labels: (N,).
        seed: fixes the noise and the batches.

    Returns:
        Layer name → standard deviation: the larger, the less sensitive is the layer.
    """
    layers = weight_enabled(net)
    set_active(net, SearchSpace.of(net).full())
    logs = nn.ParameterDict(
        {str(index): torch.tensor(START, device=inputs.device).log() for index in range(len(layers))}
    )
    generator = torch.Generator().manual_seed(seed)
    hooks = [
        layer.register_forward_hook(
            lambda _module, _inputs, output, index=index: _disturbed(output, logs[str(index)], generator)
        )
        for index, layer in enumerate(layers.values())
    ]
    wanted = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    was_training = net.training
    optimizer = torch.optim.Adam(logs.parameters(), lr=0.1)
    try:
        net.eval().requires_grad_(requires_grad=False)
        for _ in range(STEPS):
            rows = torch.randint(len(inputs), (min(BATCH, len(inputs)),), generator=generator).to(inputs.device)
            optimizer.zero_grad()
            noise = torch.stack(list(logs.values())).sum()
            loss = F.cross_entropy(net(inputs[rows]), labels[rows]) - WANT_NOISE * noise
            torch.autograd.backward(loss)
            optimizer.step()
    finally:
        for hook in hooks:
            hook.remove()
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(wanted[name])
        net.train(was_training)
    return {name: float(logs[str(index)].detach().exp()) for index, name in enumerate(layers)}


def _disturbed(output: Tensor, log_sigma: Tensor, generator: torch.Generator) -> Tensor:
    shape = (*output.shape[:2], *(1 for _ in output.shape[2:]))
    noise = torch.randn(shape, generator=generator).to(output)
    return output * (1 + log_sigma.exp() * noise)
