cwlVersion: v1.2
class: Workflow
inputs: {name: string}
outputs:
  file: {type: File, outputSource: greet/file}
steps:
  greet:
    run: greet.cwl
    in: {name: name}
    out: [file, shouted]
