"""Teachers: trained networks that label images, alone or as a committee."""

from dsdistill.teachers.committee import Committee
from dsdistill.teachers.reference import TeacherReference
from dsdistill.teachers.teacher import Teacher, load_feature_teacher, load_teachers

__all__ = ["Committee", "Teacher", "TeacherReference", "load_feature_teacher", "load_teachers"]
