for dtype in keep BF16 bfloat16 f16 float16 fp16 half f32 float32 fp32 float; do
    "$LORAFOLD" plan base -a a --dtype $dtype | grep -o "dtype [0-9]"
done
