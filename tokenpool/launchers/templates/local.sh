#!/bin/sh
{{setup}}
{{environment}}
exec {{worker}}
