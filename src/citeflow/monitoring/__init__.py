"""What processor, memory, disk and network are used, sampled while something works."""
