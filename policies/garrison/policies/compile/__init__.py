"""The mesh as Envoy API messages, one module for each type; docs/seams.md says their shapes.

Every function here is pure: equal input gives equal bytes, whoever runs it.
"""
