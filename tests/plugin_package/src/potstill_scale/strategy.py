from torch import nn, ones

from adapters import Strategy, backbone, strategies


@strategies.register("scale")
class Scale(Strategy):
    """A learnt diagonal scaling of what each layer adds to the residual stream."""

    def prepare(self, model):
        for layer in backbone.residual_layers(model):
            layer.scale = nn.Parameter(ones(model.config.hidden_size, device=model.device))
            layer.hook = layer.register_forward_hook(lambda layer, _, out: out * layer.scale)
        return model

    def finish(self, model):
        for layer in backbone.residual_layers(model):
            vars(layer).pop("hook").remove()
            backbone.scale_outputs(layer, layer._parameters.pop("scale"))
        return model
