"""What small graphs have in common: the preset dictionary of a packed graph.

Bytes as our exporter and quantizer write them: nodes, tensors, inputs and outputs, metadata. It
belongs to the format: it never changes within a version (`tests/codec/test_tables.py` keeps its
checksum).
"""

PHRASES = (
    b"\nS\n\x01x\n\x07x_scale\n\x0cx_zero_point\x12\x0bx_quantized\x1a\x1ax_quantized_Quant"
    b'izeLinear"\x0eQuantizeLinear\ne\n\x0bx_quantized\n\x07x_scale\n\x0cx_zero_po'
    b'int\x12\rx_dequantized\x1a\x1ex_dequantized_DequantizeLinear"\x10Dequanti'
    b"zeLinear\n\xaa\x01\n\x17stem.0.weight_quantized\n\x1dstem.0.weight_quantize"
    b'd_scale\n"stem.0.weight_quantized_zero_point\x12\rstem.0_weight\x1a\x1e'
    b'stem.0_weight_DequantizeLinear"\x10DequantizeLinear*\x0b\n\x04axis\x18\x00\xa0\x01'
    b"\x02\n~\n\x15stem.0_bias_quantized\n\x1bstem.0_bias_quantized_scale\x12\x0bste"
    b'm.0_bias\x1a\x1cstem.0_bias_DequantizeLinear"\x10DequantizeLinear*\x0b\n\x04'
    b"axis\x18\x00\xa0\x01\x02\n\xa3\x01\n\rx_dequantized\n\rstem.0_weight\n\x0bstem.0_bias\x12"
    b'\x08t1_float\x1a\x06stem.0"\x04Conv*\x12\n\tdilations@\x01@\x01\xa0\x01\x07*\x0c\n\x05gro'
    b"up\x18\x01\xa0\x01\x02*\x15\n\x0ckernel_shape@\x03@\x03\xa0\x01\x07*\x11\n\x04pads@\x01@"
    b"\x01@\x01@\x01\xa0\x01\x07*\x10\n\x07strides@\x01@\x01\xa0\x01\x072\x00\n^\n\x08t1_float"
    b"\n\x08t1_scale\n\rt1_zero_point\x12\x0ct1_quantized\x1a\x1bt1_quantized_Quanti"
    b'zeLinear"\x0eQuantizeLinear\nR\n\x0ct1_quantized\n\x08t1_scale\n\rt1_zero_'
    b'point\x12\x02t1\x1a\x13t1_DequantizeLinear"\x10DequantizeLinear\n\xd2\x01\n\x1fstage1.'
    b"0.conv1.weight_quantized\n%stage1.0.conv1.weight_quantized_sc"
    b"ale\n*stage1.0.conv1.weight_quantized_zero_point\x12\x15stage1.0.co"
    b'nv1_weight\x1a&stage1.0.conv1_weight_DequantizeLinear"\x10Dequanti'
    b"zeLinear*\x0b\n\x04axis\x18\x00\xa0\x01\x02\n\x9e\x01\n\x1dstage1.0.conv1_bias_quantized"
    b"\n#stage1.0.conv1_bias_quantized_scale\x12\x13stage1.0.conv1_bias\x1a$"
    b'stage1.0.conv1_bias_DequantizeLinear"\x10DequantizeLinear*\x0b\n\x04ax'
    b"is\x18\x00\xa0\x01\x02\n\x86\x01\n\x10t24_pooled_float\n\x10t24_pooled_scale\n\x15t24_poo"
    b"led_zero_point\x12\x14t24_pooled_quantized\x1a#t24_pooled_quantized_Q"
    b'uantizeLinear"\x0eQuantizeLinear\nz\n\x14t24_pooled_quantized\n\x10t24_p'
    b"ooled_scale\n\x15t24_pooled_zero_point\x12\nt24_pooled\x1a\x1bt24_pooled_D"
    b'equantizeLinear"\x10DequantizeLinear\nC\n\nt24_pooled\x12\tt24_float\x1a\x12'
    b'ReduceMean_flatten"\x07Flatten*\x0b\n\x04axis\x18\x01\xa0\x01\x022\x00\nq\n\tt24_float\n'
    b"\x10t24_pooled_scale\n\x15t24_pooled_zero_point\x12\rt24_quantized\x1a\x1ct24"
    b'_quantized_QuantizeLinear"\x0eQuantizeLinear\ne\n\rt24_quantized\n\x10'
    b"t24_pooled_scale\n\x15t24_pooled_zero_point\x12\x03t24\x1a\x14t24_Dequantize"
    b'Linear"\x10DequantizeLinear\n\xb4\x01\n\x19classify.weight_quantized\n\x1fclas'
    b"sify.weight_quantized_scale\n$classify.weight_quantized_zero_"
    b'point\x12\x0fclassify_weight\x1a classify_weight_DequantizeLinear"\x10De'
    b"quantizeLinear*\x0b\n\x04axis\x18\x00\xa0\x01\x02\n\x86\x01\n\x17classify_bias_quantized"
    b"\n\x1dclassify_bias_quantized_scale\x12\rclassify_bias\x1a\x1eclassify_bia"
    b's_DequantizeLinear"\x10DequantizeLinear*\x0b\n\x04axis\x18\x00\xa0\x01\x02\no\n\x03t24\n'
    b'\x0fclassify_weight\n\rclassify_bias\x12\x06output\x1a\x08classify"\x04Gemm*\x0f\n\x05a'
    b"lpha\x15\x00\x00\x80?\xa0\x01\x01*\x0e\n\x04beta\x15\x00\x00\x80?\xa0\x01\x01*\r\n\x06tra"
    b'nsB\x18\x01\xa0\x01\x022\x00\n#\n\x03t22\x12\x03t23\x1a\x0fstage2.1/Relu_1"\x04Relu2\x00'
    b'\nD\n\x03t23\x12\x03t24\x1a\nReduceMean"\nReduceMean*\r\n\x04axes@\x02@\x03\xa0\x01\x07*'
    b"\x0f\n\x08keepdims\x18\x00\xa0\x01\x022\x00\no\n\x03t24\n\x0fclassify.weight\n\rclassify."
    b'bias\x12\x06output\x1a\x08classify"\x04Gemm*\x0f\n\x05alpha\x15\x00\x00\x80?\xa0\x01\x01*'
    b"\x0e\n\x04beta\x15\x00\x00\x80?\xa0\x01\x01*\r\n\x06transB\x18\x01\xa0\x01\x022\x00\n\x91"
    b'\x01\n\x01x\n\rstem.0.weight\n\x0bstem.0.bias\x12\x02t0\x1a\x06stem.0"\x04Conv*\x12\n\tdi'
    b"lations@\x01@\x01\xa0\x01\x07*\x0c\n\x05group\x18\x01\xa0\x01\x02*\x15\n\x0ckernel_shape@"
    b"\x03@\x03\xa0\x01\x07*\x11\n\x04pads@\x01@\x01@\x01@\x01\xa0\x01\x07*\x10\n\x07strides@"
    b'\x01@\x01\xa0\x01\x072\x00\n\x1d\n\x02t0\x12\x02t1\x1a\x0bstem.2/Relu"\x04Relu2\x00\n\xaa'
    b"\x01\n\x02t1\n\x15stage1.0.conv1.weight\n\x13stage1.0.conv1.bias\x12\x02t2\x1a\x0estage"
    b'1.0.conv1"\x04Conv*\x12\n\tdilations@\x01@\x01\xa0\x01\x07*\x0c\n\x05group\x18\x01\xa0'
    b"\x01\x02*\x15\n\x0ckernel_shape@\x03@\x03\xa0\x01\x07*\x11\n\x04pads@\x01@\x01@\x01@\x01"
    b"\xa0\x01\x07*\x10\n\x07strides@\x01@\x01\xa0\x01\x072\x00\n\x1f\n\x02t2\x12\x02t3\x1a\rst"
    b'age1.0/Relu"\x04Relu2\x00\n\xaa\x01\n\x02t3\n\x15stage1.0.conv2.weight\n\x13stage1.0.'
    b'conv2.bias\x12\x02t4\x1a\x0estage1.0.conv2"\x04Conv*\x12\n\tdilations@\x01@\x01\xa0\x01'
    b"\x07*\x0c\n\x05group\x18\x01\xa0\x01\x02*\x15\n\x0ckernel_shape@\x03@\x03\xa0\x01\x07*"
    b"\x11\n\x04pads@\x01@\x01@\x01@\x01\xa0\x01\x07*\x10\n\x07strides@\x01@\x01\xa0\x01\x072"
    b'\x00\n!\n\x02t1\n\x02t4\x12\x02t5\x1a\x0cstage1.0/Add"\x03Add2\x00"\x03Add2\x00"\x04Relu2'
    b'\x00"\x04Clip2\x00"\x07Sigmoid2\x00"\x07Reshape2\x00"\x06Concat2\x00"\x06MatMul2\x00"\x11'
    b'GlobalAveragePool2\x00"\x0bAveragePool2\x00"\x12BatchNormalization2\x00"\nRe'
    b'duceMean2\x00"\x0eQuantizeLinear2\x00"\tLeakyRelu2\x00"\x03Pad2\x00"\x06Resize2\x00"\x08'
    b'Constant2\x00"\x07epsilon2\x00"\x05value2\x00\x12\x06output\x1aB\x0cconv1.weightJ\x12\x06'
    b"output\x1aB\nconv1.biasJ\x12\x06output\x1aB\x0cconv2.weightJ\x12\x06output\x1aB\nconv2"
    b".biasJ\x12\x06output\x1aB\nfc1.weightJ\x12\x06output\x1aB\x08fc1.biasJ\x12\x06output\x1aB"
    b"\nfc2.weightJ\x12\x06output\x1aB\x08fc2.biasJ\x12\x06output\x1aB\nfc3.weightJ\x12\x06outp"
    b"ut\x1aB\rlinear.weightJ\x12\x06output\x1aB\x11classifier.weightJ\x12\x06output\x1aB\x15l"
    b"ayer1.0.conv1.weightJ\x12\x06output\x1aB\x11features.0.weightJ\x12\x06output\x1aB"
    b"\x0ffeatures.3.biasJ\x12\x06output\x1aB\x15stage1.0.conv1.weightJ\x08\x07\x12\x08lillip"
    b'ut\x1a\x050.1.02\x00:\xbf\xa3"\n\x86\x01\n\x05input\n\x080.weight\n\x060.bias\x12\x02t0'
    b'\x1a\x010"\x04Conv*\x12\n\tdilations@\x01@\x01\xa0\x01\x07*\x0c\n\x05group\x18\x01\xa0'
    b"\x01\x02*\x15\n\x0ckernel_shape@\x03@\x03\xa0\x01\x07*\x11\n\x04pads@\x01@\x01@\x01@\x01"
    b"\xa0\x01\x07*\x10\n\x07strides@\x01@\x01\xa0\x01\x072\x00\n\x18\n\x02t0\x12\x02t1\x1a\x06"
    b'1/Relu"\x04Relu2\x00\n\x83\x01\n\x02t1\n\x082.weight\n\x062.bias\x12\x02t2\x1a\x012"\x04C'
    b"onv*\x12\n\tdilations@\x01@\x01\xa0\x01\x07*\x0c\n\x05group\x18\x01\xa0\x01\x02*\x15\n"
    b"\x0ckernel_shape@\x03@\x03\xa0\x01\x07*\x11\n\x04pads@\x01@\x01@\x01@\x01\xa0\x01\x07*"
    b'\x10\n\x07strides@\x02@\x02\xa0\x01\x072\x00\n\x18\n\x02t2\x12\x02t3\x1a\x063/Relu"\x04Re'
    b'lu2\x00\n\x80\x01\n\x02t3\x12\x02t4\x1a\t4/MaxPool"\x07MaxPool*\x10\n\tceil_mode\x18\x00'
    b"\xa0\x01\x02*\x12\n\tdilations@\x01@\x01\xa0\x01\x07*\x15\n\x0ckernel_shape@\x02@\x02\xa0"
    b"\x01\x07*\x11\n\x04pads@\x00@\x00@\x00@\x00\xa0\x01\x07*\x10\n\x07strides@\x02@\x02\xa0"
    b'\x01\x072\x00\n\x83\x01\n\x02t4\n\x085.weight\n\x065.bias\x12\x02t5\x1a\x015"\x04Conv*'
    b"\x12\n\tdilations@\x01@\x01\xa0\x01\x07*\x0c\n\x05group\x18 \xa0\x01\x02*\x15\n\x0ckernel"
    b"_shape@\x03@\x03\xa0\x01\x07*\x11\n\x04pads@\x01@\x01@\x01@\x01\xa0\x01\x07*\x10\n\x07str"
    b'ides@\x01@\x01\xa0\x01\x072\x00\n\x18\n\x02t5\x12\x02t6\x1a\x066/Relu"\x04Relu2\x00\n\x83'
    b'\x01\n\x02t6\n\x087.weight\n\x067.bias\x12\x02t7\x1a\x017"\x04Conv*\x12\n\tdilations@\x01'
    b"@\x01\xa0\x01\x07*\x0c\n\x05group\x18\x01\xa0\x01\x02*\x15\n\x0ckernel_shape@\x01@\x01"
    b"\xa0\x01\x07*\x11\n\x04pads@\x00@\x00@\x00@\x00\xa0\x01\x07*\x10\n\x07strides@\x01@\x01"
    b'\xa0\x01\x072\x00\n\x18\n\x02t7\x12\x02t8\x1a\x068/Relu"\x04Relu2\x00\n\x8e\x01\n\x02t8'
    b'\x12\x02t9\x1a\r9/AveragePool"\x0bAveragePool*\x10\n\tceil_mode\x18\x00\xa0\x01\x02*\x18'
    b"\n\x11count_include_pad\x18\x01\xa0\x01\x02*\x15\n\x0ckernel_shape@\x02@\x02\xa0\x01\x07*"
    b"\x11\n\x04pads@\x00@\x00@\x00@\x00\xa0\x01\x07*\x10\n\x07strides@\x02@\x02\xa0\x01\x072"
    b'\x00\n-\n\x02t9\x12\x03t10\x1a\n10/Flatten"\x07Flatten*\x0b\n\x04axis\x18\x01\xa0\x01\x02'
    b'2\x00\nZ\n\x03t10\n\t11.weight\n\x0711.bias\x12\x03t11\x1a\x0211"\x04Gemm*\x0f\n\x05alpha'
    b"\x15\x00\x00\x80?\xa0\x01\x01*\x0e\n\x04beta\x15\x00\x00\x80?\xa0\x01\x01*\r\n\x06transB"
    b'\x18\x01\xa0\x01\x022\x00\n\x1b\n\x03t11\x12\x03t12\x1a\x0712/Relu"\x04Relu2\x00\n]\n\x03'
    b't12\n\t13.weight\n\x0713.bias\x12\x06output\x1a\x0213"\x04Gemm*\x0f\n\x05alpha\x15\x00'
    b"\x00\x80?\xa0\x01\x01*\x0e\n\x04beta\x15\x00\x00\x80?\xa0\x01\x01*\r\n\x06transB\x18\x01"
    b"\xa0\x01\x022\x00\x12\x0cnet.py:build*\xd9\r\x08\x10\x08\x03\x08\x03\x08\x03\x10\x01B\x08"
    b"0.weightJ\xc0\rb\x00*P\x08\x10\x10\x01B\x060.biasJ@b\x00*\x9a\x90\x01\x08 \x08\x10\x08"
    b"\x03\x08\x03\x10\x01B\x082.weightJ\x80\x90\x01b\x00*\x91\x01\x08 \x10\x01B\x062.biasJ\x80"
    b"\x01b\x00*\x99\t\x08 \x08\x01\x08\x03\x08\x03\x10\x01B\x085.weightJ\x80\tb\x00*\x91\x01"
    b"\x08 \x10\x01B\x065.biasJ\x80\x01b\x00*\x99@\x08@\x08 \x08\x01\x08\x01\x10\x01B\x087.weig"
    b"htJ\x80@b\x00*\x91\x02\x08@\x10\x01B\x067.biasJ\x80\x02b\x00*\x99\x80 \x08\x80\x01\x08"
    b"\x80\x08\x10\x01B\t11.weightJ\x80\x80 b\x00*\x93\x04\x08\x80\x01\x10\x01B\x0711.biasJ\x80"
    b"\x04b\x00*\x97(\x08\n\x08\x80\x01\x10\x01B\t13.weightJ\x80(b\x00*9\x08\n\x10\x01B\x0713.b"
    b"iasJ(b\x00R\x00Z&\n\x05input\x12\x1b\n\x19\x08\x01\x12\x15\n\x07\x12\x05batch\n\x02\x08"
    b"\x03\n\x02\x08 \n\x02\x08 \x1a\x00b\x1f\n\x06output\x12\x13\n\x11\x08\x01\x12\r\n\x07\x12"
    b'\x05batch\n\x02\x08\n\x1a\x00B\x02\x10\rr\x93\x02\n\x08lilliput\x12\x86\x02{"inputs":[{"d'
    b'type":"float32","name":"input","sample":[1,3,32,32],"shape":'
    b'[null,3,32,32]}],"isa":["avx2"],["amx"],["vnni"],"parent":"o'
    b"riginal-evolved-pruned-shared-quantize-prune_channels-prune_"
    b"blocks-search_filters-search_bits-prune_weights-distill-shar"
    b'e_weights-distill_adversarial-finetune-int8-fp32","precision'
    b'":"int8","mixed","fp32","preprocessing":{"channels":3,"mean"'
    b':[0.4914,0.4822,0.4465],"scale":1.0,"size":null,"std":[0.247'
    b',0.2435,0.2616]}{"channels":3,"mean":[0.485,0.456,0.406],"st'
    b'd":[0.229,0.224,0.225]},"preprocessing":null,"recipe":[],"pr'
    b'eprocessing":{"channels":1,"mean":[0.1307],"scale":0.0039215'
    b'6862745098,"size":null,"std":[0.3081]},"recipe":[{"quantize"'
    b':{"rate":4.0,"weight_bits":4,"bits":3,"max_drop":0.5}},{"pru'
    b'ne_channels":{"ratio":0.5,"keep_macs":0.5,"multiple_of":8}},'
    b'{"search_filters":{"generations":20,"population":32}},{"dist'
    b'ill":{"epochs":20,"learning_rate":0.001,"batch_size":128,"au'
    b'gment":false,"optimizer":"adam","schedule":"cosine","tempera'
    b'ture":4.0}},{"prune_weights":{"density":0.02,"keep":{"0.weig'
    b'ht":0.5,"sparsity":0.98,"steps":10,"scope":"global","layer",'
    b'"epochs":30}},{"share_weights":{"clusters":16,"initial":"lin'
    b'ear","bits":4,"values":8,"epochs":5}},{"finetune":{"epochs":'
    b'10}},{"export":{}}],"task":{"label_smoothing":0.0,"name":"cl'
    b'assification","top_k":1},"version":"0.1.0"}'
)
