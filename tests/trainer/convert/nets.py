"""Small plain networks of every kind that people bring; (N, 3, 32, 32) in, (N, 5) out."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.trainer.conftest import enliven_norm

SHAPE = (3, 32, 32)


def conv_bn(inputs, outputs, kernel=1, stride=1, groups=1):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(outputs)


class Headed(nn.Module):
    """A stem before and a head behind what `body` makes."""

    def __init__(self, width=32, channels=32):
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, width, 3, 2), nn.ReLU())
        self.head = nn.Linear(channels, 5)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def vgg():
    """Convolutions with biases in one Sequential, pooling between them."""
    rows = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 32), (32, 64), (64, 64)):
        conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        rows += [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*rows, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(64, 5))


class Basic(nn.Module):
    """A basic residual block; its activation is used twice."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2, self.bn2 = conv_bn(outputs, outputs, 3)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None if inputs == outputs else nn.Sequential(*conv_bn(inputs, outputs, 1, stride))

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Residual(Headed):
    def __init__(self):
        super().__init__(channels=64)
        self.body = nn.Sequential(Basic(32, 32), Basic(32, 64, 2))


class Bottleneck(nn.Module):
    """A bottleneck; with groups, as in ResNeXt."""

    def __init__(self, channels, inner, groups=1):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(channels, inner)
        self.conv2, self.bn2 = conv_bn(inner, inner, 3, groups=groups)
        self.conv3, self.bn3 = conv_bn(inner, channels)
        self.act = nn.SiLU()

    def forward(self, x):
        out = self.act(self.bn1(self.conv1(x)))
        out = self.act(self.bn2(self.conv2(out)))
        return self.act(torch.add(self.bn3(self.conv3(out)), x))


class Bottlenecks(Headed):
    def __init__(self, groups=1):
        super().__init__(width=64, channels=64)
        self.body = nn.Sequential(Bottleneck(64, 32, groups), Bottleneck(64, 48, groups))


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, 16, 1), nn.Conv2d(16, channels, 1)

    def forward(self, x):
        scale = x.mean((2, 3), keepdim=True)
        return x * self.fc2(F.relu(self.fc1(scale))).sigmoid()


class Inverted(nn.Module):
    """An inverted residual with squeeze-and-excite."""

    def __init__(self, inputs, inner, outputs):
        super().__init__()
        self.has_shortcut = inputs == outputs
        self.expand = nn.Sequential(*conv_bn(inputs, inner), nn.Hardswish())
        self.depthwise = nn.Sequential(*conv_bn(inner, inner, 3, groups=inner), nn.Hardswish())
        self.squeeze = SqueezeExcite(inner)
        self.project = nn.Sequential(*conv_bn(inner, outputs))

    def forward(self, x):
        out = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + out if self.has_shortcut else out


class Mobile(Headed):
    """The second block has no shortcut, so a projection leads straight into a convolution."""

    def __init__(self):
        super().__init__(channels=96)
        last = nn.Sequential(*conv_bn(48, 96), nn.ReLU6())
        self.body = nn.Sequential(Inverted(32, 64, 32), Inverted(32, 64, 48), last)


class Swish(nn.Module):
    """A user's own activation."""

    def forward(self, x):
        return x * torch.sigmoid(x)


class Functional(Headed):
    """Activations, dropout and pooling as functions and methods, and one of the user's own; asks for shapes."""

    def __init__(self):
        super().__init__(channels=64)
        self.conv1, self.bn1 = conv_bn(32, 64, 3)
        self.conv2, self.bn2 = conv_bn(64, 64, 3)
        self.conv3, self.bn3 = conv_bn(64, 32, 3)
        self.conv4, self.bn4 = conv_bn(32, 64, 3)
        self.conv5, self.bn5 = conv_bn(64, 64, 3)
        self.swish, self.rate = Swish(), 0.2

    def body(self, x):
        x = F.dropout(F.relu(self.bn1(self.conv1(x))), self.rate, training=self.training)
        x = self.bn2(self.conv2(x)).clamp(0, 6)
        size = x.shape
        x = F.max_pool2d(self.swish(self.bn3(self.conv3(x))), 2)
        x = torch.tanh(self.bn4(self.conv4(x)))
        return self.bn5(self.conv5(x)) * (32 / size[2])


class Dense(Headed):
    """Every layer reads all maps before it, norm first; a layer without anything behind but the join."""

    def __init__(self):
        super().__init__(channels=64)
        self.bn1, self.conv1 = nn.BatchNorm2d(32), nn.Conv2d(32, 64, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(64), nn.Conv2d(64, 32, 3, padding=1, bias=False)
        self.transition, self.last = nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64)

    def body(self, x):
        new = self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())
        return self.last(F.avg_pool2d(self.transition(torch.cat([x, new], 1)), 2)).relu()


class Inception(Headed):
    """Branches of different depth that are joined."""

    def __init__(self):
        super().__init__(channels=96)
        self.left = nn.Sequential(*conv_bn(32, 32), nn.ReLU())
        self.right = nn.Sequential(*conv_bn(32, 64), nn.ReLU(), *conv_bn(64, 64, 3), nn.ReLU())

    def body(self, x):
        return torch.cat((self.left(x), self.right(x)), dim=1)


class BatchNormAct2d(nn.BatchNorm2d):
    """What timm's class of this name does."""

    def __init__(self, channels, act):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), act

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class Activated(Headed):
    """Batch norms with their activation inside."""

    def __init__(self):
        super().__init__(channels=64)
        self.body = nn.Sequential(
            nn.Conv2d(32, 64, 1, bias=False),
            BatchNormAct2d(64, nn.SiLU(inplace=True)),
            nn.Conv2d(64, 64, 3, padding="same", dilation=(1, 2), groups=64, bias=False),
            BatchNormAct2d(64, nn.SiLU(inplace=True)),
            nn.Conv2d(64, 64, (3, 1), (2, 1), (1, 0)),
            BatchNormAct2d(64, nn.Identity()),
        )


class Odd(Headed):
    """Channels that 16 does not divide, and exactly 16 of them."""

    def __init__(self):
        super().__init__(channels=32)
        row = [*conv_bn(32, 24), nn.ReLU(), *conv_bn(24, 16), nn.ReLU(), *conv_bn(16, 32), nn.ReLU()]
        self.body = nn.Sequential(*row, nn.ConvTranspose2d(32, 32, 2, 2), nn.BatchNorm2d(32))


NETS = {
    "vgg": vgg,
    "residual": Residual,
    "bottlenecks": Bottlenecks,
    "resnext": lambda: Bottlenecks(groups=8),
    "mobile": Mobile,
    "functional": Functional,
    "dense": Dense,
    "inception": Inception,
    "activated": Activated,
    "odd": Odd,
}


def enliven(net):
    """Random norms, so that a mix-up shows, and weights that keep the signal's size."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            enliven_norm(module)
    return net.eval()


def make(name):
    torch.manual_seed(0)
    return enliven(NETS[name]())
